"""Upsampling that follows the edges of the image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Windows are fitted at half the size of the small picture: better than at its size, and four times faster.
SUBSAMPLING, RADIUS = 2, 1


@dataclass(frozen=True)
class Guidance:
    """The channels of the image that guide the picture, and how closely it follows them."""

    weights: tuple[tuple[float, ...], ...]  # (3, C): of red, green and blue in each channel of the guide
    # Variance of the guide's values in [0, 1]. Where the image varies less, the picture is smoothed; where it varies
    # more, the picture takes over its edges.
    smoothness: float


# Surfaces are smoother than bilinear interpolation makes them. Gray of ITU-R BT.601.
BY_GRAY = Guidance(weights=((0.299,), (0.587,), (0.114,)), smoothness=0.005)
# Finds more edges, also between colors of one brightness, and makes surfaces as rough as bilinear interpolation does.
BY_COLOR = Guidance(weights=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), smoothness=0.0025)


def guided_upsample(picture: Tensor, image: Tensor, guidance: Guidance) -> Tensor:
    """The fast guided filter (He and Sun, arXiv 1505.00996): a picture (1, 1, h, w), values in [0, 1], at the size of
    `image` (H, W, 3) uint8, as (1, 1, H, W).

    In each window the picture is fitted by slopes * guide + offset, with a slope for each channel of the guide. Slopes
    and offset are upsampled, and the image itself gives the details.
    """
    guide = (image.float() @ _weights(guidance, image.device) / 255).permute(2, 0, 1)[None]
    count = guide.shape[1]
    size = [max(1, side // SUBSAMPLING) for side in picture.shape[2:]]
    small, picture = (F.interpolate(each, size, mode="area") for each in (guide, picture))
    moments = _window_means(torch.cat((small, picture, small * picture, _products(small)), dim=1))
    mean_guide, mean, product, square = moments.split((count, 1, count, count**2), dim=1)
    slopes = _solve(square - _products(mean_guide), product - mean_guide * mean, guidance.smoothness)
    offset = mean - (slopes * mean_guide).sum(1, keepdim=True)
    fits = _window_means(torch.cat((slopes, offset), dim=1))
    slopes, offset = F.interpolate(fits, guide.shape[2:], mode="bilinear").split((count, 1), dim=1)
    return (offset + (slopes * guide).sum(1, keepdim=True)).clamp(0, 1)


@cache
def _weights(guidance: Guidance, device: torch.device) -> Tensor:
    """(3, C). Copied to a device once, because a frame would wait for each copy."""
    return torch.tensor(guidance.weights, device=device)


def _products(guide: Tensor) -> Tensor:
    """(1, C, h, w) -> (1, C * C, h, w), of each channel with each."""
    return (guide[:, :, None] * guide[:, None]).flatten(1, 2)


def _solve(covariance: Tensor, product: Tensor, smoothness: float) -> Tensor:
    """Slopes (1, C, h, w) of least squares with a ridge, by covariances (1, C * C, h, w) and (1, C, h, w)."""
    count = product.shape[1]
    if count == 1:
        return product / (covariance + smoothness)
    matrices = covariance.movedim(1, -1).unflatten(-1, (count, count)).clone()
    matrices.diagonal(dim1=-2, dim2=-1).add_(smoothness)
    slopes, _ = torch.linalg.solve_ex(matrices, product.movedim(1, -1)[..., None])  # positive definite
    return slopes[..., 0].movedim(-1, 1)


def _window_means(pictures: Tensor) -> Tensor:
    """(1, C, h, w), of windows that are smaller at the borders."""
    side = 2 * RADIUS + 1
    rows = F.avg_pool2d(pictures, (1, side), 1, (0, RADIUS), count_include_pad=False)
    return F.avg_pool2d(rows, (side, 1), 1, (RADIUS, 0), count_include_pad=False)
