"""Points of another sensor as the depth that the camera sees."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lotus2_ros.geometry.camera import Camera

# A point so much farther than those around it is behind them; less may be a slope.
MARGIN = 0.05
# Cells of the z-buffer: so many points each, on average, and at most this share of the image's longer side.
POINTS_PER_CELL = 4
LARGEST_CELL = 0.02


def sparse_depth(points: Tensor, camera: Camera) -> Tensor:
    """Depth (H, W) float32 of points (N, 3) in the camera's optical frame, in their unit; NaN where none is seen.

    The nearest point of a pixel wins. A sensor beside the camera also sees what is hidden from it: a point that has
    nearer ones on opposite sides, left and right or above and below, is left out. (On a floor or a wall seen at an
    angle they are on one side only.)
    """
    pixels, depth = camera.project(points)
    column, row = pixels.nan_to_num(-1, -1, -1).round().long().unbind(-1)
    inside = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    column, row, depth = column[inside], row[inside], depth[inside].float()
    seen = ~_hidden(column, row, depth, camera)
    return _nearest(column[seen], row[seen], depth[seen], camera.height, camera.width).nan_to_num(posinf=torch.nan)


def rigid_transform(translation: Sequence[float], quaternion: Sequence[float]) -> Tensor:
    """(4, 4) float64 that takes points of a child frame to its parent: p' = R p + t, as geometry_msgs/Transform does.

    ``quaternion`` is x y z w, of any length but 0. Raises ValueError.
    """
    x, y, z, w = quaternion
    square = x * x + y * y + z * z + w * w
    if not 0 < square < math.inf:
        raise ValueError(f"expected a quaternion of some length, got {list(quaternion)}")
    s = 2 / square
    rows = [
        [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w), translation[0]],
        [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w), translation[1]],
        [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y), translation[2]],
        [0, 0, 0, 1],
    ]
    return torch.tensor(rows, dtype=torch.float64)


def _hidden(column: Tensor, row: Tensor, depth: Tensor, camera: Camera) -> Tensor:
    """Bool mask of the points that nearer ones enclose, by a z-buffer of cells about as fine as the points are."""
    area = camera.height * camera.width * POINTS_PER_CELL / max(1, len(depth))
    cell = max(1, min(round(math.sqrt(area)), round(LARGEST_CELL * max(camera.height, camera.width))))
    column, row = column // cell + 1, row // cell + 1
    height, width = camera.height // cell + 3, camera.width // cell + 3  # an empty cell on every side
    # In inverse depth, where planes are linear: 0 where a cell is empty.
    nearness = 1 / _nearest(column, row, depth, height, width)
    left, right = nearness[row, column - 1], nearness[row, column + 1]
    above, below = nearness[row - 1, column], nearness[row + 1, column]
    enclosing = torch.maximum(torch.minimum(left, right), torch.minimum(above, below))
    slope = ((left - right).abs() + (above - below).abs()) / 2  # of one surface, from cell to cell
    return enclosing * (1 - MARGIN) > 1 / depth + slope


def _nearest(column: Tensor, row: Tensor, depth: Tensor, height: int, width: int) -> Tensor:
    """(height, width) of the least depth in each cell, Inf where there is none."""
    grid = torch.full((height * width,), math.inf, device=depth.device)
    return grid.scatter_reduce_(0, row * width + column, depth, "amin").view(height, width)
