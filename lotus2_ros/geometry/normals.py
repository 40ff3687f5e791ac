"""Surface normals.

Convention: unit vectors in the camera optical frame (x right, y down, z forward; REP-103) that point toward the camera:
a wall that faces the camera has (0, 0, -1), a floor seen from above (0, -1, 0).
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

# The model's axes are x left, y up, z toward the camera: all three are the optical frame's, negated.
MODEL_TO_OPTICAL = -1.0
# Planes are fitted to pixels so far away in rows and columns, within so much of the depth, so many at least, and not
# in a line: the determinant of their spread, of its squared trace.
FIT_REACH = 2
FIT_GAP = 0.05
FIT_PIXELS = 4
FIT_SPREAD = 1e-3


def normalize(normals: Tensor) -> Tensor:
    """Unit length along the last dimension; NaN where a vector has no direction (shorter than 1e-6)."""
    length = normals.norm(dim=-1, keepdim=True)
    return torch.where(length > 1e-6, normals / length, torch.nan)


def normals_to_color(normals: Tensor) -> Tensor:
    """The customary picture of normals (..., 3), uint8 RGB: left red, up green, toward the camera blue, NaN black."""
    color = ((MODEL_TO_OPTICAL * normals + 1) * 127.5).round()
    return torch.nan_to_num(color, nan=0.0).clamp(0, 255).to(torch.uint8)


def normals_from_depth(depth: Tensor, rays: Tensor) -> Tensor:
    """Normals (H, W, 3), toward the camera, of the planes through depth (H, W) along `rays` (H, W, 3) with z = 1.

    On a plane inverse depth is linear in the ray, 1 / z = m . r, and m is along the normal: least squares over the
    5 x 5 pixels around, without those whose depth differs by more than 5 % (the thresholds of the public Lotus for
    Virtual KITTI; plane fitting of Klasing et al., ICRA 2009). NaN where fewer than 4 are left, or all in one line.
    """
    height, width = depth.shape
    middle = torch.cat((rays[..., :2], (1 / depth)[..., None]), dim=-1)
    padded = F.pad(middle.permute(2, 0, 1), (FIT_REACH,) * 4, value=torch.nan)
    count, moments = torch.zeros_like(depth), torch.zeros(height, width, 8, dtype=depth.dtype, device=depth.device)
    for row, column in product(range(2 * FIT_REACH + 1), repeat=2):
        around = padded[:, row : row + height, column : column + width].permute(1, 2, 0)
        # z' / z - 1, from inverse depths; NaN, of the sky or where there is no depth, is not near anything.
        near = (middle[..., 2] / around[..., 2] - 1).abs() < FIT_GAP
        x, y, d = torch.where(near[..., None], around - middle, 0.0).unbind(-1)
        count += near
        moments += torch.stack((x, y, d, x * x, x * y, y * y, x * d, y * d), dim=-1)
    x, y, d, xx, xy, yy, xd, yd = (moments / count[..., None]).unbind(-1)
    xx, xy, yy, xd, yd = xx - x * x, xy - x * y, yy - y * y, xd - x * d, yd - y * d
    determinant = xx * yy - xy * xy
    fitted = (count >= FIT_PIXELS) & (determinant > FIT_SPREAD * (xx + yy) ** 2)
    along_x, along_y = (yy * xd - xy * yd) / determinant, (xx * yd - xy * xd) / determinant
    offset = d + middle[..., 2] - along_x * (x + middle[..., 0]) - along_y * (y + middle[..., 1])
    normals = -F.normalize(torch.stack((along_x, along_y, offset), dim=-1), dim=-1)
    return torch.where(fitted[..., None], normals, torch.nan)
