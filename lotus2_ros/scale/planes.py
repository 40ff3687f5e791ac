"""Least-squares planes of disparity in overlapping windows of several sizes, and the windows' mean normals.

On a plane, 1 / z is proportional to n . r for rays r = (x, y, 1). So disparity is affine in x and y, and its mean over
any pixels is affine in their mean x and y. Pixels are therefore averaged in cells first, and planes are fitted to the
means. Sums over cells add up, so large windows cost no more than small ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lotus2_ros.model.engine.device import to_host

# Approximate number of cells along the longer side of the image, and of sampled pixels along the side of a cell.
CELLS = 80
SAMPLES = 4
# Cells along the side of a window. The larger windows overlap by half.
WINDOWS = (4, 8, 16)
MIN_STRIDE = 4
# Smallest fraction of valid pixels in a window.
MIN_SHARE = 0.5


@dataclass(frozen=True)
class Cells:
    """Means over the valid pixels of square cells, float64, (..., h, w); 0 where `share` is 0."""

    share: Tensor  # fraction of valid pixels
    x: Tensor  # of the rays, as y
    y: Tensor
    disparity: Tensor
    normals: Tensor  # (..., h, w, 3), shorter than 1 where the pixels' normals differ


@dataclass(frozen=True)
class Windows:
    """Planes disparity + gradient . ((x, y) - ray) in windows (..., N). Only windows with `good` are meaningful."""

    good: Tensor  # bool
    ray: Tensor  # (..., N, 2), mean x and y
    disparity: Tensor  # mean
    gradient: Tensor  # (..., N, 2)
    gradient_variance: Tensor  # of one component, from the residuals
    normal: Tensor  # (..., N, 3) unit
    normal_variance: Tensor  # of the cells' normals about it, radians squared


def pinhole_rays(K: Tensor, height: int, width: int) -> Tensor:
    """x and y of the rays K^-1 (u, v, 1): (..., H, W, 2) for K (..., 3, 3) in pixels, integer pixel centers."""
    rows, columns = (torch.arange(size, dtype=torch.float64, device=K.device) for size in (height, width))
    # inv synchronizes with the device to check that there is an inverse; inv_ex does not.
    right, down, corner = torch.linalg.inv_ex(K.double())[0][..., :2, :].unbind(-1)
    across = (columns[:, None] * right[..., None, :] + corner[..., None, :]).float()
    return across[..., None, :, :] + (rows[:, None] * down[..., None, :]).float()[..., :, None, :]


def pool_cells(disparity: Tensor, normals: Tensor, rays: Tensor, valid: Tensor) -> Cells:
    """Cells, on the host, of disparity and valid (..., H, W), normals (..., H, W, 3) and rays (..., H, W, 2 or 3).

    NaN is not valid.
    """
    longer = max(disparity.shape[-2:])
    step = max(1, longer // (CELLS * SAMPLES))
    side = max(1, longer // (step * CELLS))
    disparity, valid = disparity[..., ::step, ::step].float(), valid[..., ::step, ::step]
    normals, rays = normals[..., ::step, ::step, :], rays[..., ::step, ::step, :2]
    channels = (*rays.unbind(-1), disparity, *normals.unbind(-1))
    planes = torch.stack([channel.to(disparity).expand_as(disparity) for channel in channels], dim=-3)
    use = (valid & torch.isfinite(planes.sum(-3)))[..., None, :, :]
    planes = torch.cat((use, torch.where(use, planes, 0)), dim=-3)
    (cells,) = to_host(pool(planes, side, side))  # what follows is hundreds of tiny operations
    share, sums = cells.double().split((1, 6), dim=-3)
    x, y, disparity, *normal = (sums / share.clamp_min(1e-9)).unbind(-3)
    return Cells(share.squeeze(-3), x, y, disparity, torch.stack(normal, dim=-1))


def fit_windows(cells: Cells) -> Windows:
    """Plane and mean normal of all windows, of every size that fits into the image."""
    sizes = [size for size in WINDOWS if size <= min(cells.share.shape[-2:])]
    if not sizes:
        raise ValueError(
            f"expected an image of at least {WINDOWS[0]} x {WINDOWS[0]} pixels, got {tuple(cells.share.shape[-2:])}"
        )
    terms = torch.stack((torch.ones_like(cells.x), cells.x, cells.y, cells.disparity), dim=-3)
    products = (terms[..., :, None, :, :] * terms[..., None, :, :, :]).flatten(-4, -3)
    normals = F.normalize(cells.normals, dim=-1).movedim(-1, -3)
    sums = cells.share[..., None, :, :] * torch.cat((products, normals), dim=-3)
    pooled = torch.cat([pool(sums, size, max(size // 2, MIN_STRIDE)).flatten(-2) for size in sizes], dim=-1)
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
    good = (share > MIN_SHARE) & (determinant > 1e-3 * (xx + yy).square())
    return Windows(
        good, mean[..., :2, :].mT, mean[..., 2, :], gradient, residual * (xx + yy) / (2 * determinant),
        normal.mT / length[..., None], -2 * length.log(),
    )  # fmt: skip


def pool(planes: Tensor, side: int, stride: int) -> Tensor:
    """Means of (..., C, h, w) over windows of `side` x `side`."""
    pooled = F.avg_pool2d(planes.reshape(-1, *planes.shape[-3:]), side, stride)
    return pooled.reshape(*planes.shape[:-2], *pooled.shape[-2:])
