"""Planes by the window: least squares of disparity over overlapping windows of several sizes, and their mean normals.

On a plane 1 / z is proportional to n.r along the rays r = (x, y, 1), so that disparity is affine in x and y, and its
mean over any pixels is affine in their mean x and y. Pixels are therefore pooled into cells first, and planes are
fitted to the cells' means; sums over cells add, which makes large windows as cheap as small ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Cells along the longer side of an image, and pixels that are looked at along the side of a cell; both about.
CELLS = 80
SAMPLES = 4
# Cells along the side of a window; the larger ones overlap by half.
WINDOWS = (4, 8, 16)
LEAST_STRIDE = 4
# Of a window's pixels, to be valid.
LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Cells:
    """Means over square cells of pixels, float64, (..., h, w); 0 where `share` is 0."""

    share: Tensor  # of the pixels that are valid
    x: Tensor  # of the rays
    y: Tensor
    disparity: Tensor
    normals: Tensor  # (..., h, w, 3), shorter than 1 where they differ


@dataclass(frozen=True)
class Windows:
    """disparity + gradient . ((x, y) - ray) in windows (..., N); where `good` is false the rest means nothing."""

    good: Tensor  # bool
    ray: Tensor  # (..., N, 2), mean x and y
    disparity: Tensor  # mean
    gradient: Tensor  # (..., N, 2)
    gradient_variance: Tensor  # of one component, from the residuals
    normal: Tensor  # (..., N, 3) unit
    normal_variance: Tensor  # of a cell's normal about it, radians squared


def pinhole_rays(K: Tensor, height: int, width: int) -> Tensor:
    """x and y of the rays K^-1 (u, v, 1), z = 1: (..., H, W, 2) for K (..., 3, 3) in pixels, integer centres."""
    rows, columns = (torch.arange(size, dtype=torch.float64, device=K.device) for size in (height, width))
    # inv waits for the device to find that there is an inverse; inv_ex does not.
    right, down, corner = torch.linalg.inv_ex(K.double())[0][..., :2, :].unbind(-1)
    across = (columns[:, None] * right[..., None, :] + corner[..., None, :]).float()
    return across[..., None, :, :] + (rows[:, None] * down[..., None, :]).float()[..., :, None, :]


def pool_cells(disparity: Tensor, normals: Tensor, rays: Tensor, valid: Tensor) -> Cells:
    """Cells of disparity, valid (..., H, W) and normals, rays (..., H, W, 3 or 2); what is not finite is not valid."""
    longer = max(disparity.shape[-2:])
    step = max(1, longer // (CELLS * SAMPLES))
    side = max(1, longer // (step * CELLS))
    disparity, valid = disparity[..., ::step, ::step].float(), valid[..., ::step, ::step]
    normals, rays = normals[..., ::step, ::step, :], rays[..., ::step, ::step, :2]
    channels = (*rays.unbind(-1), disparity, *normals.unbind(-1))
    planes = torch.stack([channel.to(disparity).expand_as(disparity) for channel in channels], dim=-3)
    use = (valid & torch.isfinite(planes.sum(-3)))[..., None, :, :]
    planes = torch.cat((use, torch.where(use, planes, 0)), dim=-3)
    share, sums = pool(planes, side, side).double().split((1, 6), dim=-3)
    x, y, disparity, *normal = (sums / share.clamp_min(1e-9)).unbind(-3)
    return Cells(share.squeeze(-3), x, y, disparity, torch.stack(normal, dim=-1))


def fit_windows(cells: Cells) -> Windows:
    """The plane and the mean normal of every window of every size that fits into the image."""
    sizes = [size for size in WINDOWS if size <= min(cells.share.shape[-2:])]
    if not sizes:
        raise ValueError(f"expected an image of at least {WINDOWS[0]} x {WINDOWS[0]} pixels")
    terms = torch.stack((torch.ones_like(cells.x), cells.x, cells.y, cells.disparity), dim=-3)
    products = (terms[..., :, None, :, :] * terms[..., None, :, :, :]).flatten(-4, -3)
    normals = F.normalize(cells.normals, dim=-1).movedim(-1, -3)
    sums = cells.share[..., None, :, :] * torch.cat((products, normals), dim=-3)
    pooled = torch.cat([pool(sums, size, max(size // 2, LEAST_STRIDE)).flatten(-2) for size in sizes], dim=-1)
    share = pooled[..., 0, :]
    moments, normal = (pooled / share[..., None, :].clamp_min(1e-9)).split((16, 3), dim=-2)
    moments = moments.unflatten(-2, (4, 4))
    mean = moments[..., 0, 1:, :]
    (xx, xy, xd), (_, yy, yd), (_, _, dd) = (
        row.unbind(-2) for row in (moments[..., 1:, 1:, :] - mean[..., :, None, :] * mean[..., None, :, :]).unbind(-3)
    )
    determinant = (xx * yy - xy * xy).clamp_min(1e-30)
    gradient = torch.stack((yy * xd - xy * yd, xx * yd - xy * xd), dim=-1) / determinant[..., None]
    residual = (dd - gradient[..., 0] * xd - gradient[..., 1] * yd).clamp_min(0)
    length = normal.norm(dim=-2).clamp(1e-9, 1)
    good = (share > LEAST_SHARE) & (determinant > 1e-3 * (xx + yy).square())
    return Windows(
        good, mean[..., :2, :].mT, mean[..., 2, :], gradient, residual * (xx + yy) / (2 * determinant),
        normal.mT / length[..., None], -2 * length.log(),
    )  # fmt: skip


def pool(planes: Tensor, side: int, stride: int) -> Tensor:
    """Means over windows of (..., C, h, w), each `side` wide and high."""
    pooled = F.avg_pool2d(planes.reshape(-1, *planes.shape[-3:]), side, stride)
    return pooled.reshape(*planes.shape[:-2], *pooled.shape[-2:])
