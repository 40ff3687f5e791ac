"""Where the sky is."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

# Cells of the image that a decision is made for, at most so many along its longer side.
CELLS = 80
SAMPLES = 4  # normals that a cell's is the mean of, along each side
CELL_DISPARITY, PIXEL_DISPARITY = 0.06, 0.08
# Degrees. Far walls that face the camera are within 12, and then taken for sky in some warehouses.
CELL_ANGLE, PIXEL_ANGLE = 6.0, 30.0
# The sky is farther than so many times the nearest point.
FAR = 4.0


def sky_mask(disparity: Tensor, normals: Tensor, shift_over_scale: float) -> Tensor:
    """Bool mask (H, W) of the sky, of affine-invariant disparity (H, W), 1 = near, and normals (H, W, 3).

    Far disparity alone is also the far end of every room. But of what is seen there the surfaces stand at an angle to
    the view, floor and ceiling before all, while a predicted sky, which has no surface, faces the camera: it is far,
    its normals are (0, 0, -1), and nothing but sky is above it in the image. A wall that is all that is kept out by
    ``shift_over_scale``, the s in depth ~ 1 / (disparity + s): with it the wall is not far compared with what is near.

    Cells decide, of averages, so that noise of the normals does not; pixels of these and the cells around them then
    have to be far too, so that the sky ends where things begin.
    """
    height, width = disparity.shape
    step = max(1, max(height, width) // (CELLS * SAMPLES))
    size = step * SAMPLES
    far = F.avg_pool2d(disparity[None, None], size, ceil_mode=True)[0, 0]
    direction = F.avg_pool2d(normals[::step, ::step].permute(2, 0, 1)[None], SAMPLES, ceil_mode=True)[0]
    cells = (far < CELL_DISPARITY) & (FAR * (far + shift_over_scale) < 1 + shift_over_scale)
    cells &= -direction[2] > math.cos(math.radians(CELL_ANGLE)) * direction.norm(dim=0)
    # From the top row down, without a gap.
    cells = F.max_pool2d(cells.float().cummin(dim=0).values[None], 3, stride=1, padding=1)[0] > 0
    mask = cells.repeat_interleave(size, dim=0)[:height].repeat_interleave(size, dim=1)[:, :width]
    return mask & (disparity < PIXEL_DISPARITY) & (normals[..., 2] < -math.cos(math.radians(PIXEL_ANGLE)))
