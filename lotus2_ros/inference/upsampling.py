"""Upsampling that follows the edges of the image."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Windows are fitted at half the size of the small picture, which is as good as at its size and four times faster.
SUBSAMPLING, RADIUS = 2, 2
GRAY = (0.299, 0.587, 0.114)  # ITU-R BT.601
# Variance of gray values in [0, 1]. Where the image varies less, the picture is smoothed; where it varies more, the
# picture takes over its edges. Below this, the texture of surfaces shows in their depth.
SMOOTHNESS = 0.01


def guided_upsample(picture: Tensor, image: Tensor) -> Tensor:
    """The fast guided filter (He and Sun, arXiv 1505.00996): a picture (1, 1, h, w), values in [0, 1], at the size of
    `image` (H, W, 3) uint8, as (1, 1, H, W).

    In each window the picture is fitted by slope * gray + offset of the image. Slope and offset are upsampled, and the
    image itself gives the details.
    """
    gray = (image.float() @ _gray_weights(image.device) / 255)[None, None]
    size = [max(1, side // SUBSAMPLING) for side in picture.shape[2:]]
    small, picture = (F.interpolate(each, size, mode="area") for each in (gray, picture))
    moments = _window_means(torch.cat((small, picture, small * picture, small.square()), dim=1))
    mean_gray, mean, product, square = moments.split(1, dim=1)
    slope = (product - mean_gray * mean) / (square - mean_gray.square() + SMOOTHNESS)
    fits = _window_means(torch.cat((slope, mean - slope * mean_gray), dim=1))
    slope, offset = F.interpolate(fits, gray.shape[2:], mode="bilinear").split(1, dim=1)
    return (slope * gray + offset).clamp(0, 1)


@cache
def _gray_weights(device: torch.device) -> Tensor:
    """Copied to a device once, because a frame would wait for each copy."""
    return torch.tensor(GRAY, device=device)


def _window_means(pictures: Tensor) -> Tensor:
    """(1, C, h, w), of windows that are smaller at the borders."""
    side = 2 * RADIUS + 1
    rows = F.avg_pool2d(pictures, (1, side), 1, (0, RADIUS), count_include_pad=False)
    return F.avg_pool2d(rows, (side, 1), 1, (RADIUS, 0), count_include_pad=False)
