"""Surface normals.

Convention: unit vectors in the camera optical frame (REP-103: x right, y down, z forward) that point toward the camera.
A wall that faces the camera has the normal (0, 0, -1), a floor seen from above (0, -1, 0).
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

# The models' axes are x left, y up, z toward the camera: the optical frame's axes, all three negated.
MODEL_TO_OPTICAL = -1.0
# Window of a plane fit: 2 pixels to each side.
FIT_RADIUS = 2
# Pixels whose depth differs from the center's by more than this fraction are left out.
FIT_DEPTH_GAP = 0.05
# Fewest pixels of a fit.
FIT_MIN_PIXELS = 4
# Smallest determinant of the pixels' covariance, relative to its squared trace: below it they lie in one line.
FIT_MIN_SPREAD = 1e-3


def normalize(normals: Tensor) -> Tensor:
    """Scale vectors to unit length along the last dimension; NaN where they are shorter than 1e-6."""
    # On a CPU torch's norm takes 60 times as long where the components are planes (3, H, W) in memory.
    length = normals.square().sum(dim=-1, keepdim=True).sqrt()
    return (normals / length).masked_fill_(length <= 1e-6, torch.nan)


def normals_to_color(normals: Tensor) -> Tensor:
    """Normals (..., 3) as uint8 RGB: left is red, up is green, toward the camera is blue, NaN is black."""
    color = ((MODEL_TO_OPTICAL * normals + 1) * 127.5).round()
    return torch.nan_to_num(color, nan=0.0).clamp(0, 255).to(torch.uint8)


def normals_from_depth(depth: Tensor, rays: Tensor) -> Tensor:
    """Normals from depth, by a least-squares plane in the 5 x 5 window around each pixel.

    On a plane, inverse depth is linear in the ray, 1 / z = m . r, and m is parallel to the normal. Pixels whose depth
    differs by more than 5 % from the center's are left out. Plane fitting as in Klasing et al., ICRA 2009, with the
    thresholds of the public Lotus code for Virtual KITTI.

    Args:
        depth: (H, W) along z.
        rays: (H, W, 3) with z = 1, see :attr:`Camera.rays`.

    Returns:
        (H, W, 3) unit normals toward the camera. NaN where fewer than 4 pixels are left or all lie in one line.
    """
    height, width = depth.shape
    middle = torch.cat((rays[..., :2], (1 / depth)[..., None]), dim=-1)
    padded = F.pad(middle.permute(2, 0, 1), (FIT_RADIUS,) * 4, value=torch.nan)
    count, moments = torch.zeros_like(depth), torch.zeros(height, width, 8, dtype=depth.dtype, device=depth.device)
    for row, column in product(range(2 * FIT_RADIUS + 1), repeat=2):
        around = padded[:, row : row + height, column : column + width].permute(1, 2, 0)
        # z' / z - 1, from inverse depths. NaN (sky, no depth) compares as not near.
        near = (middle[..., 2] / around[..., 2] - 1).abs() < FIT_DEPTH_GAP
        x, y, d = torch.where(near[..., None], around - middle, 0.0).unbind(-1)
        count += near
        moments += torch.stack((x, y, d, x * x, x * y, y * y, x * d, y * d), dim=-1)
    x, y, d, xx, xy, yy, xd, yd = (moments / count[..., None]).unbind(-1)
    xx, xy, yy, xd, yd = xx - x * x, xy - x * y, yy - y * y, xd - x * d, yd - y * d
    determinant = xx * yy - xy * xy
    fitted = (count >= FIT_MIN_PIXELS) & (determinant > FIT_MIN_SPREAD * (xx + yy) ** 2)
    along_x, along_y = (yy * xd - xy * yd) / determinant, (xx * yd - xy * xd) / determinant
    offset = d + middle[..., 2] - along_x * (x + middle[..., 0]) - along_y * (y + middle[..., 1])
    normals = -F.normalize(torch.stack((along_x, along_y, offset), dim=-1), dim=-1)
    return torch.where(fitted[..., None], normals, torch.nan)
