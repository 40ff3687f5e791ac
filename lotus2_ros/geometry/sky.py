"""Sky segmentation from disparity and normals."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

# Largest number of cells along the image's longer side. The decision is made per cell first.
CELLS = 80
SAMPLES = 4  # normals averaged along each side of a cell
# Largest disparity of sky, of a cell's mean and of a pixel.
CELL_DISPARITY, PIXEL_DISPARITY = 0.06, 0.08
# Largest angle in degrees between sky normals and the direction toward the camera, of a cell's mean and of a pixel.
# With 12 degrees per cell, far walls that face the camera were taken for sky in some warehouses.
CELL_ANGLE, PIXEL_ANGLE = 6.0, 30.0
# Smallest ratio between the depth of the sky and of the nearest point.
MIN_DEPTH_RATIO = 4.0


def sky_mask(disparity: Tensor, normals: Tensor, shift_over_scale: float) -> Tensor:
    """Segment the sky.

    A low disparity alone does not mean sky: every room has a far end. But surfaces at the far end mostly stand at an
    angle to the view, above all floor and ceiling. For sky, which has no surface, models predict normals that face the
    camera. So sky has a low disparity, normals close to (0, 0, -1), and only sky above it in the image. A far wall that
    faces the camera meets these conditions too; it is kept out because its depth is less than 4 times that of the
    nearest point.

    Cells are classified by their means first, so noise of the normals matters little. In these cells and those next to
    them, single pixels must pass as well, so the mask follows the edges of objects.

    Args:
        disparity: (H, W) affine-invariant, 1 = near.
        normals: (H, W, 3) in the optical frame.
        shift_over_scale: s in depth ~ 1 / (disparity + s), which gives ratios of depth.

    Returns:
        Bool (H, W).
    """
    height, width = disparity.shape
    step = max(1, max(height, width) // (CELLS * SAMPLES))
    size = step * SAMPLES
    far = F.avg_pool2d(disparity[None, None], size, ceil_mode=True)[0, 0]
    direction = F.avg_pool2d(normals[::step, ::step].permute(2, 0, 1)[None], SAMPLES, ceil_mode=True)[0]
    cells = (far < CELL_DISPARITY) & (MIN_DEPTH_RATIO * (far + shift_over_scale) < 1 + shift_over_scale)
    cells &= -direction[2] > math.cos(math.radians(CELL_ANGLE)) * direction.square().sum(dim=0).sqrt()
    # Only cells that are connected to the top row, straight up.
    cells = F.max_pool2d(cells.float().cummin(dim=0).values[None], 3, stride=1, padding=1)[0] > 0
    mask = cells.repeat_interleave(size, dim=0)[:height].repeat_interleave(size, dim=1)[:, :width]
    return mask & (disparity < PIXEL_DISPARITY) & (normals[..., 2] < -math.cos(math.radians(PIXEL_ANGLE)))
