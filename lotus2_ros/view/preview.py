"""A preview picture of results: image | disparity | depth | normals | point cloud from another viewpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.normals import normals_to_color

CELL_WIDTH = 480  # pixels; five of them are about the width of a README or a screen
BACKGROUND = (24, 26, 30)


@dataclass(frozen=True)
class Row:
    """The results of one stage. None makes an empty cell."""

    title: str
    image: Tensor  # (H, W, 3) uint8 RGB
    disparity: Tensor | None = None  # (H, W) in [0, 1], 1 = near
    depth: Tensor | None = None  # (H, W) along z, NaN invalid
    normals: Tensor | None = None  # (H, W, 3) unit, optical frame
    camera: Camera | None = None  # with depth: the cloud
    metric: bool = False  # depth in meters


def save_preview(path: Path | str, rows: Sequence[Row]) -> None:
    """Draw the rows below each other and write a PNG. All rows have the depth colors of the first."""
    depths = [row.depth for row in rows if row.depth is not None]
    near, far = depth_range(depths[0]) if depths else (0.0, 1.0)
    unit = "m" if any(row.metric for row in rows) else "x unknown scale"
    columns: list[tuple[str, Callable[[Row], Tensor | None]]] = [
        ("image", lambda row: row.image),
        ("disparity, affine-invariant", lambda row: colored(row.disparity, 0.0, 1.0, "magma")),
        (f"depth, {near:.2g} to {far:.2g} {unit}", lambda row: colored(row.depth, near, far, "turbo_r")),
        ("normals", lambda row: None if row.normals is None else normals_to_color(row.normals)),
        ("point cloud", lambda row: None if row.depth is None else cloud_view(row.image, row.depth, row.camera)),
    ]
    height, width = rows[0].image.shape[:2]
    figure = Figure(figsize=(len(columns) * 3.2 + 0.3, len(rows) * 3.2 * height / width + 0.35), dpi=CELL_WIDTH / 3.2)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for row, line in zip(rows, axes, strict=True):
        line[0].set_ylabel(row.title, fontsize=min(11, 24 * height / width))  # fits beside a wide image
        for axis, (_, picture) in zip(line, columns, strict=True):
            show(axis, picture(row))
    for axis, (title, _) in zip(axes[0], columns, strict=True):
        axis.set_title(title, fontsize=11, pad=4)
    figure.tight_layout(pad=0.3, h_pad=0.3, w_pad=0.3)
    figure.savefig(path, facecolor="white")


def show(axis: Axes, picture: Tensor | None) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    if picture is None:
        axis.text(0.5, 0.5, "not estimated", ha="center", va="center", color="gray")
    else:
        axis.imshow(picture.cpu().numpy(), interpolation="antialiased")


def depth_range(depth: Tensor) -> tuple[float, float]:
    """The 2nd and 98th percentile of finite depth, the latter at most 6 times the median.

    Otherwise a far horizon would leave a single color for everything else.
    """
    finite = depth[torch.isfinite(depth)]
    if not finite.numel():
        return 0.0, 1.0
    # quantile() takes at most 2^24 elements, and a sample of them is enough.
    sample = finite[:: finite.numel() // 10**6 + 1].float()
    near, median, far = torch.quantile(sample, torch.tensor([0.02, 0.5, 0.98], device=sample.device)).tolist()
    return near, max(min(far, 6 * median), near * 1.001)


def colored(values: Tensor | None, low: float, high: float, colormap: str) -> Tensor | None:
    """(H, W) as uint8 RGB through a matplotlib color map; NaN is gray."""
    if values is None:
        return None
    shades = ((values.cpu().float() - low) / (high - low)).clamp(0, 1).numpy()
    rgba = colormaps[colormap].with_extremes(bad="dimgray")(np.ma.masked_invalid(shades), bytes=True)
    return torch.from_numpy(rgba[..., :3].copy())


def cloud_view(
    image: Tensor, depth: Tensor, camera: Camera | None, yaw: float = 24.0, pitch: float = 14.0
) -> Tensor | None:
    """The colored cloud seen by a second camera, (H, W, 3) uint8; None without a camera or without points.

    The second camera is turned about the middle of the scene by ``yaw`` degrees to the right and ``pitch`` up, and
    zoomed to fit. The nearest point wins (z-buffer). Points on depth edges, which hang between two surfaces, are left
    out.
    """
    if camera is None:
        return None
    step = max(1, image.shape[1] // 640)
    keep = (torch.isfinite(depth) & ~depth_edges(depth))[::step, ::step]
    points = camera.unproject(depth)[::step, ::step][keep].cpu().double()
    if not len(points):
        return None
    colors = image[::step, ::step][keep].cpu().long()
    middle = torch.tensor([0.0, 0.0, float(points[:, 2].median())], dtype=torch.float64)
    seen = (points - middle) @ view_rotation(yaw, pitch).T + middle
    in_front = seen[:, 2] > 0.1 * middle[2]
    height, width = image[::step, ::step].shape[:2]
    return splat(seen[in_front], colors[in_front], fitting_camera(seen[in_front], width, height))


def fitting_camera(points: Tensor, width: int, height: int) -> Camera:
    """A camera of this size at the origin, with 98 % of the points (N, 3) filling its image."""
    rays = points[:, :2] / points[:, 2:]
    low, high = torch.quantile(rays[:: len(rays) // 10**6 + 1], torch.tensor([0.01, 0.99]).double(), dim=0)
    f_px = float((torch.tensor([width, height]) / (high - low).clamp(min=1e-6)).min())
    cx, cy = (torch.tensor([width - 1, height - 1]) / 2 - f_px * (low + high) / 2).tolist()
    return Camera.from_intrinsics(width, height, f_px, f_px, cx, cy)


def depth_edges(depth: Tensor, jump: float = 0.06) -> Tensor:
    """(H, W) bool: where depth differs from that of the next pixel by more than this share."""
    edges = torch.zeros_like(depth, dtype=torch.bool)
    for dim in (0, 1):
        step = depth.diff(dim=dim).abs() > jump * depth.narrow(dim, 1, depth.shape[dim] - 1)
        edges.narrow(dim, 0, depth.shape[dim] - 1).logical_or_(step)
        edges.narrow(dim, 1, depth.shape[dim] - 1).logical_or_(step)
    return edges


def view_rotation(yaw: float, pitch: float) -> Tensor:
    """Rotation (3, 3) from an optical frame to that of a camera ``yaw`` degrees to its right and ``pitch`` above."""
    cy, sy = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
    cp, sp = math.cos(math.radians(pitch)), math.sin(math.radians(pitch))
    about_y = torch.tensor([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]], dtype=torch.float64)
    about_x = torch.tensor([[1, 0, 0], [0, cp, -sp], [0, sp, cp]], dtype=torch.float64)
    return about_x @ about_y


def splat(points: Tensor, colors: Tensor, camera: Camera, radius: int = 1) -> Tensor:
    """Points (N, 3) with colors (N, 3), drawn as squares of 2 * radius + 1 pixels, nearest on top: (H, W, 3) uint8."""
    points, colors = points[points[:, 2] > 1e-6], colors[points[:, 2] > 1e-6]
    u, v, w = (points @ camera.K.double().T).unbind(-1)
    u, v = (u / w).round().long(), (v / w).round().long()
    # Depth in the high bits, color in the low ones: the least value at a pixel has the color of its nearest point.
    near = float(points[:, 2].min()) if len(points) else 1.0
    layer = (points[:, 2] / near * 1e4).clamp(max=2.0**38).long()
    packed = (layer << 24) | (colors[:, 0] << 16) | (colors[:, 1] << 8) | colors[:, 2]
    nothing = torch.iinfo(torch.int64).max
    buffer = torch.full((camera.height * camera.width,), nothing)
    for dv in range(-radius, radius + 1):
        for du in range(-radius, radius + 1):
            inside = (u + du >= 0) & (u + du < camera.width) & (v + dv >= 0) & (v + dv < camera.height)
            cells = ((v + dv) * camera.width + u + du)[inside]
            buffer.scatter_reduce_(0, cells, packed[inside], "amin")
    rgb = torch.stack([(buffer >> shift) & 255 for shift in (16, 8, 0)], dim=-1)
    picture = torch.where(buffer[:, None] == nothing, torch.tensor(BACKGROUND), rgb)
    return picture.to(torch.uint8).reshape(camera.height, camera.width, 3)
