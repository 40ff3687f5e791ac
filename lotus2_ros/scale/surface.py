"""What the model says of the surfaces at the cells of a small grid and at points: depth, slope and features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.scale.interpolation import resized, samples
from lotus2_ros.scale.scale import RelativeGeometry, Scale

# Differences that separate surfaces as much as the mean distance between points does: of log depth, of the image's
# colors, which are in [0, 1], and of unit normals: what stands on a floor says little of the floor around it.
EDGE_DEPTH, EDGE_COLOR, EDGE_NORMAL = 0.2, 0.4, 0.6
# Least cosine between a normal and its ray: nearly along a surface depth has no slope. And the most that log depth is
# made to rise from one cell to the next: more is an edge, and not a slope.
GRAZING, STEEPEST = 0.1, 0.3


@dataclass(frozen=True)
class SurfaceSamples:
    """The surfaces at some places (...)."""

    place: Tensor  # (2, ...) down and across in cells
    log_depth: Tensor  # (...) by scale and shift
    features: Tensor  # (C, ...) which differ by 1 at an edge
    slope: Tensor | None  # (2, ...) how much log depth rises down and across from one cell to the next, by the normals

    def looks(self) -> Tensor:
        """(2 + C, ...): place and features."""
        return torch.cat((self.place, self.features))

    def map(self, change: Callable[[Tensor], Tensor]) -> SurfaceSamples:
        """The surfaces with a change of the shape (...)."""
        parts = [each for each in (self.place, self.log_depth[None], self.features, self.slope) if each is not None]
        changed = change(torch.cat(parts)).split([len(each) for each in parts])
        return SurfaceSamples(changed[0], changed[1][0], changed[2], None if self.slope is None else changed[3])


def surface_of_cells(frame: RelativeGeometry, scale: Scale, height: int, width: int, far: Tensor) -> SurfaceSamples:
    """The surfaces (h, w) at the cells of a grid; ``far``: least inverse depth."""
    inverse_depth = scale.scale * samples(frame.disparity[..., None], height, width) + scale.shift
    if scale.correction is not None:
        inverse_depth += samples(scale.correction[..., None], height, width)
    log_depth = -torch.maximum(inverse_depth, far).log_()[0]
    color = None if frame.image is None else samples(frame.image, height, width).float()
    normals = None if frame.normals is None else samples(frame.normals, height, width).nan_to_num()
    slope = None
    if normals is not None and frame.camera is not None:
        slope = _slope(normals, *_rays(frame.camera, height, width))
    return SurfaceSamples(_places(height, width), log_depth, _features(log_depth, color, normals), slope)


def surface_of_points(
    frame: RelativeGeometry, scale: Scale, cells: SurfaceSamples, down: Tensor, across: Tensor, far: Tensor
) -> SurfaceSamples:
    """The surfaces (N,) at points down and across the image, from 0 to 1; ``cells`` are those of a grid (h, w)."""
    height, width = cells.log_depth.shape
    place = torch.stack((down * height, across * width)).float()
    v, u = place.long()
    row, column = ((at * size).long() for at, size in zip((down, across), frame.disparity.shape, strict=True))
    inverse_depth = scale.scale * frame.disparity[row, column] + scale.shift
    if scale.correction is not None:
        inverse_depth += resized(scale.correction[None], height, width)[0, v, u]
    log_depth = -torch.maximum(inverse_depth, far).log()
    color = None if frame.image is None else frame.image[row, column].T
    normals = None if frame.normals is None else frame.normals[row, column].T.nan_to_num()
    slope = None if cells.slope is None else cells.slope[:, v, u]
    return SurfaceSamples(place, log_depth, _features(log_depth, color, normals), slope)


def _features(log_depth: Tensor, color: Tensor | None, normals: Tensor | None) -> Tensor:
    """(C, ...), which differ by 1 at an edge; ``color`` (3, ...) from 0 to 255, normals (3, ...)."""
    given = (log_depth[None], EDGE_DEPTH), (color, 255 * EDGE_COLOR), (normals, EDGE_NORMAL)
    return torch.cat([values / edge for values, edge in given if values is not None])


@lru_cache(maxsize=16)  # of the few sizes of grids in a process
def _places(height: int, width: int) -> Tensor:
    """Places (2, h, w) of the cells' middles."""
    sides = (torch.arange(size) + 0.5 for size in (height, width))
    return torch.stack(torch.meshgrid(*sides, indexing="ij"))


@lru_cache(maxsize=4)  # of the cameras in a process
def _rays(camera: Camera, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Rays (3, h, w) of the cells, and how much they change (2, 3, h, w) down and across, from one to the next."""
    rays = samples(camera.rays, height, width).cpu().nan_to_num()
    return rays, torch.stack(torch.gradient(rays, dim=(1, 2)))


def _slope(normals: Tensor, rays: Tensor, change: Tensor) -> Tensor:
    """How much log depth rises (2, h, w) from one cell to the next, by normals and rays (3, h, w).

    ``change``: (2, 3, h, w) of the rays, from one cell to the next, down and across.
    On a plane 1 / z is proportional to n . r, so log depth rises by -(n . dr) / (n . r) from one ray to the next.
    """
    # The square root of sums, because on a CPU torch's norm takes many times as long over planes in memory.
    least = GRAZING * (normals.square().sum(0) * rays.square().sum(0)).sqrt()
    toward = torch.maximum(-(normals * rays).sum(0), least).clamp_min(1e-6)
    return ((normals * change).sum(1) / toward).clamp_(-STEEPEST, STEEPEST)
