"""What a frame's geometry costs outside the model, at 640x480: on one CPU core, and on a GPU if there is one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.geometry.figure import Figure
from benchmarks.timing import median_ms
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.cloud import flying_pixels, organized_cloud
from lotus2_ros.geometry.depth import disparity_to_depth
from lotus2_ros.geometry.sky import sky_mask
from lotus2_ros.scale.field import Field, fit_field
from lotus2_ros.scale.fit import fit_scale_shift
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.scale import RelativeGeometry, Scale

WIDTH, HEIGHT = 640, 480
SCALE, SHIFT = 0.5, 0.05
EDGE_THRESHOLD = 0.05
SPARSE, DENSE = 500, 8192  # points of a lidar, and as many as a dense reference is thinned to
WANTED_MS = {"cpu": 6.0, "cuda": 1.0}
FIELD_MS = 3.0


def figures(frames: Path | None, quick: bool) -> Iterator[Figure]:
    for name in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        device = torch.device(name)
        for case, run in _steps(device).items():
            taken = median_ms(run, device, seconds=0.01 if quick else 2.0)
            wanted = WANTED_MS[name] if case.startswith("fit of 500 points + ") else None
            wanted = FIELD_MS if name == "cpu" and case == "local field of 500 points" else wanted
            yield Figure("time, 640x480", f"{name}: {case}", taken, "ms", wanted)


def _steps(device: torch.device) -> dict[str, Callable[[], object]]:
    disparity, normals = _scene(device)
    image = torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8, device=device)
    pinhole = Camera.from_fov(WIDTH, HEIGHT, 70.0)
    camera = Camera(WIDTH, HEIGHT, pinhole.K.to(device))
    depth = disparity_to_depth(disparity, SCALE, SHIFT)

    def fit(count: int) -> tuple[Tensor, Tensor]:
        points = disparity.flatten()[:: disparity.numel() // count][:count]
        scale, shift, _ = fit_scale_shift(points, SCALE * points + SHIFT, torch.ones_like(points))
        return scale, shift

    def cloud_of(depth: Tensor, edge_threshold: float) -> Tensor:
        return organized_cloud(
            depth, camera, image, None, stride=1, min_depth=0.0, max_depth=math.inf, edge_threshold=edge_threshold
        )

    def everything(count: int) -> Tensor:
        return cloud_of(disparity_to_depth(disparity, *fit(count)), EDGE_THRESHOLD)

    def field(count: int) -> Callable[[], Field]:
        bent = torch.full_like(depth, math.nan).flatten()
        places = torch.randperm(depth.numel(), generator=torch.Generator().manual_seed(0))[:count].to(device)
        bent[places] = depth.flatten()[places] * (1 + 0.3 * torch.sin(places / depth.numel() * math.tau))
        reference, line = Reference(bent.view(depth.shape)), Scale(SCALE, SHIFT, "reference_depth", metric=True)
        frame = RelativeGeometry(disparity, image, normals, camera)
        return lambda: fit_field(frame, line, reference)

    local = field(SPARSE)().log_factor
    with_field = Scale(SCALE, SHIFT, "reference_depth", metric=True, local=local, farthest=100.0).to(device)
    return {
        "fit of 500 points": lambda: fit(SPARSE),
        "local field of 500 points": field(SPARSE),
        "local field of 8192 points": field(DENSE),
        "depth with the local field": lambda: with_field.depth_of(disparity, image),
        "fit of 8192 points": lambda: fit(DENSE),
        "depth": lambda: disparity_to_depth(disparity, SCALE, SHIFT),
        "unprojection alone": lambda: camera.unproject(depth),
        "flying pixels": lambda: flying_pixels(depth, EDGE_THRESHOLD),
        "unprojection and packing of a cloud": lambda: cloud_of(depth, 0.0),
        "fit of 500 points + depth + cloud without flying pixels": lambda: everything(SPARSE),
        "fit of 8192 points + depth + cloud without flying pixels": lambda: everything(DENSE),
        "sky": lambda: sky_mask(disparity, normals, SHIFT / SCALE),
    }


def _scene(device: torch.device) -> tuple[Tensor, Tensor]:
    """Disparity and normals of a floor, with a box on it and nothing behind."""
    rows = torch.linspace(-1, 1, HEIGHT)[:, None].expand(HEIGHT, WIDTH)
    disparity = rows.clamp(min=0).clone()
    normals = torch.where((rows > 0)[..., None], torch.tensor([0.0, -1.0, 0.0]), torch.tensor([0.0, 0.0, -1.0]))
    disparity[200:400, 250:400], normals[200:400, 250:400] = 0.7, torch.tensor([0.0, 0.0, -1.0])
    # The planes of a model's normals are together in memory.
    return disparity.to(device), normals.permute(2, 0, 1).contiguous().permute(1, 2, 0).to(device)
