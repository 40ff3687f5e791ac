"""What the model says of the surfaces at the cells of a small grid and at points: depth, slope and color."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lotus2_ros.scale.interpolation import resized
from lotus2_ros.scale.scale import RelativeGeometry, Scale

# Differences that separate surfaces as much as the mean distance between points does: of log depth, and of the image's
# colors, which are in [0, 1].
EDGE_DEPTH, EDGE_COLOR = 0.2, 0.4
SAMPLES = 2  # pixels read from each cell and side
# Least cosine between a normal and its ray: nearly along a surface depth has no slope. And the most that log depth is
# made to rise from one cell to the next: more is an edge, and not a slope.
GRAZING, STEEPEST = 0.1, 0.3


@dataclass(frozen=True)
class Surface:
    """The surfaces at some places (...)."""

    place: Tensor  # (2, ...) down and across in cells
    log_depth: Tensor  # (...) by scale and shift
    color: Tensor | None  # (3, ...) from 0 to 1; None: no image
    slope: Tensor | None  # (2, ...) how much log depth rises down and across from one cell to the next, by the normals

    def looks(self) -> Tensor:
        """(C, ...): place, and features that differ by 1 at an edge."""
        color = [] if self.color is None else [self.color / EDGE_COLOR]
        return torch.cat((self.place, self.log_depth[None] / EDGE_DEPTH, *color))

    def map(self, change: Callable[[Tensor], Tensor]) -> Surface:
        """The surfaces with a change of the shape (...)."""
        color, slope = (None if each is None else change(each) for each in (self.color, self.slope))
        return Surface(change(self.place), change(self.log_depth[None])[0], color, slope)


def surface_of_cells(frame: RelativeGeometry, scale: Scale, height: int, width: int, far: Tensor) -> Surface:
    """The surfaces (h, w) at the cells of a grid; ``far``: least inverse depth, on the device of the result."""
    to = far.device
    sides = (torch.arange(size, device=to) + 0.5 for size in (height, width))
    place = torch.stack(torch.meshgrid(*sides, indexing="ij"))
    disparity = _samples(frame.disparity, height, width, SAMPLES).to(to)
    inverse_depth = scale.scale * disparity + scale.shift
    if scale.correction is not None:
        inverse_depth += _samples(scale.correction, height, width, SAMPLES).to(to)
    log_depth = -_pooled(torch.maximum(inverse_depth, far).log()[..., None], SAMPLES)[0]
    color = slope = None
    if frame.image is not None:
        color = _pooled(_samples(frame.image, height, width, SAMPLES).to(to) / 255, SAMPLES)
    if frame.normals is not None and frame.camera is not None:
        normals = _pooled(_samples(frame.normals, height, width, SAMPLES).to(to), SAMPLES)
        rays = _samples(frame.camera.rays, height, width, 1).to(to).permute(2, 0, 1)
        slope = _slope(normals.nan_to_num(), rays.nan_to_num())
    return Surface(place, log_depth, color, slope)


def surface_of_points(
    frame: RelativeGeometry, scale: Scale, cells: Surface, down: Tensor, across: Tensor, far: Tensor
) -> Surface:
    """The surfaces (N,) at points down and across the image, from 0 to 1; ``cells`` are those of a grid (h, w)."""
    height, width = cells.log_depth.shape
    place = torch.stack((down * height, across * width)).float()
    v, u = place.long()
    row, column = ((at * size).long() for at, size in zip((down, across), frame.disparity.shape, strict=True))
    row, column = row.to(frame.disparity.device), column.to(frame.disparity.device)
    inverse_depth = scale.scale * frame.disparity[row, column].to(far.device) + scale.shift
    if scale.correction is not None:
        inverse_depth += resized(scale.correction[None].to(far.device), height, width)[0, v, u]
    color = None if frame.image is None else frame.image[row, column].T.to(far.device) / 255
    slope = None if cells.slope is None else cells.slope[:, v, u]
    return Surface(place, -torch.maximum(inverse_depth, far).log(), color, slope)


def _slope(normals: Tensor, rays: Tensor) -> Tensor:
    """How much log depth rises (2, h, w) down and across, from one cell to the next, by normals and rays (3, h, w).

    On a plane 1 / z is proportional to n . r, so log depth rises by -(n . dr) / (n . r) from one ray to the next.
    """
    # The square root of sums, because on a CPU torch's norm takes many times as long over planes in memory.
    least = GRAZING * (normals.square().sum(0) * rays.square().sum(0)).sqrt()
    toward = torch.maximum(-(normals * rays).sum(0), least).clamp_min(1e-6)
    rise = torch.stack([(normals * change).sum(0) / toward for change in torch.gradient(rays, dim=(1, 2))])
    return rise.clamp(-STEEPEST, STEEPEST)


def _samples(image: Tensor, height: int, width: int, count: int) -> Tensor:
    """(count * h, count * w, ...): so many pixels per cell and side of an image (H, W, ...)."""
    rows, columns = (
        ((torch.arange(count * cells, device=image.device) + 0.5) * (size / (count * cells))).long()
        for cells, size in zip((height, width), image.shape, strict=False)
    )
    return image.index_select(0, rows).index_select(1, columns)


def _pooled(samples: Tensor, count: int) -> Tensor:
    """Means (C, h, w) of the samples (count * h, count * w, C) of each cell."""
    # One side after the other takes half the time on a CPU.
    return samples.unflatten(0, (-1, count)).mean(1).unflatten(1, (-1, count)).mean(2).permute(2, 0, 1)
