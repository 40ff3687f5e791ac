"""Project the points of another sensor into the camera as sparse depth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lotus2_ros.geometry.camera import Camera

# Fraction of depth by which a point must lie behind its neighbors to be hidden by them. Less may be a slope.
OCCLUSION_MARGIN = 0.05
# Cells of the z-buffer: average number of points in each, and largest side as a fraction of the image's longer side.
POINTS_PER_CELL = 4
MAX_CELL_SIDE = 0.02


def sparse_depth(points: Tensor, camera: Camera) -> Tensor:
    """Sparse depth (H, W) float32 from points (N, 3) in the camera's optical frame, in the points' unit.

    NaN where a pixel has no point. The nearest point of a pixel wins. A sensor beside the camera also sees surfaces
    that are hidden from the camera: a point with nearer points on two opposite sides, left and right or above and
    below, is removed. (On a floor or a wall seen at an angle, nearer points are on one side only.)
    """
    pixels, depth = camera.project(points)
    column, row = pixels.nan_to_num(-1, -1, -1).round().long().unbind(-1)
    inside = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    column, row, depth = column[inside], row[inside], depth[inside].float()
    seen = ~_hidden(column, row, depth, camera)
    return _nearest(column[seen], row[seen], depth[seen], camera.height, camera.width).nan_to_num(posinf=torch.nan)


def rigid_transform(translation: Sequence[float], quaternion: Sequence[float]) -> Tensor:
    """Homogeneous (4, 4) float64 from child to parent frame, p' = R p + t, as geometry_msgs/Transform defines it.

    ``quaternion`` is x, y, z, w and is normalized. Raises ValueError if its length is 0, and on NaN and Inf.
    """
    if not all(map(math.isfinite, translation)):
        raise ValueError("expected finite numbers, got NaN or Inf in the translation")
    x, y, z, w = quaternion
    square = x * x + y * y + z * z + w * w
    if not 0 < square < math.inf:
        raise ValueError(f"expected a quaternion with a length above 0, got {list(quaternion)}")
    s = 2 / square
    rows = [
        [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w), translation[0]],
        [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w), translation[1]],
        [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y), translation[2]],
        [0, 0, 0, 1],
    ]
    return torch.tensor(rows, dtype=torch.float64)


def _hidden(column: Tensor, row: Tensor, depth: Tensor, camera: Camera) -> Tensor:
    """Mask of the points enclosed by nearer ones, by a z-buffer whose cells are about as dense as the points."""
    area = camera.height * camera.width * POINTS_PER_CELL / max(1, len(depth))
    cell = max(1, min(round(math.sqrt(area)), round(MAX_CELL_SIDE * max(camera.height, camera.width))))
    column, row = column // cell + 1, row // cell + 1
    height, width = camera.height // cell + 3, camera.width // cell + 3  # with a border of empty cells
    # In inverse depth, where planes are linear. Empty cells are 0.
    nearness = 1 / _nearest(column, row, depth, height, width)
    left, right = nearness[row, column - 1], nearness[row, column + 1]
    above, below = nearness[row - 1, column], nearness[row + 1, column]
    enclosing = torch.maximum(torch.minimum(left, right), torch.minimum(above, below))
    slope = ((left - right).abs() + (above - below).abs()) / 2  # change from cell to cell on one surface
    return enclosing * (1 - OCCLUSION_MARGIN) > 1 / depth + slope


def _nearest(column: Tensor, row: Tensor, depth: Tensor, height: int, width: int) -> Tensor:
    """Smallest depth of each cell, (height, width); Inf where a cell is empty."""
    grid = torch.full((height * width,), math.inf, device=depth.device)
    return grid.scatter_reduce_(0, row * width + column, depth, "amin").view(height, width)
