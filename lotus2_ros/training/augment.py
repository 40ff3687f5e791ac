"""Artifacts of cameras and files, so that training does not depend on our renderer's images alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lotus2_ros.scenes.photo import compressed

FILTER_SIZES = (1, 3, 5)  # pixels
# Shares of the images without color, out of focus, of few pixels, and compressed.
GRAY, BLURRED, COARSE, COMPRESSED = 0.15, 0.25, 0.1, 0.3


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, H, W) in [-1, 1] with other brightness, contrast, white balance, saturation and noise."""

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return low + (high - low) * torch.rand(len(images), channels, 1, 1, generator=generator)

    values = (images * 0.5 + 0.5).clamp_min(1e-3) ** draw(0.6, 1.6) * draw(0.6, 1.2) * draw(0.8, 1.2, 3)
    gray = values.mean(1, keepdim=True)
    colored = torch.rand(len(images), 1, 1, 1, generator=generator) > GRAY
    values = torch.lerp(gray, values, draw(0.1, 1.3) * colored) + draw(0, 0.02) * torch.randn(
        values.shape, generator=generator
    )
    return values.clamp(0, 1) * 2 - 1


def degrade(images: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, H, W) in [-1, 1]: some images out of focus, at lower resolution or with JPEG artifacts."""
    drawn = torch.rand(len(images), 4, generator=generator)
    degraded = []
    for image, (blurred, coarse, pressed, much) in zip(images, drawn.tolist(), strict=True):
        if blurred < BLURRED:
            image = _blur(image, 0.4 + 1.2 * much)
        if coarse < COARSE:
            sides = [round(side / (1.2 + much)) for side in image.shape[1:]]
            small = F.interpolate(image[None], sides, mode="area")
            image = F.interpolate(small, image.shape[1:], mode="bilinear", align_corners=False)[0]
        if pressed < COMPRESSED:
            rounded = compressed(image.permute(1, 2, 0) * 0.5 + 0.5, 0.01 + 0.07 * much**2)
            image = rounded.clamp(0, 1).permute(2, 0, 1) * 2 - 1
        degraded.append(image)
    return torch.stack(degraded)


def _blur(image: Tensor, deviation: float) -> Tensor:
    """(3, H, W) under a Gaussian, whose deviation is in pixels."""
    reach = 3
    taps = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * deviation**2))
    taps = taps / taps.sum()
    padded = F.pad(image[:, None], [reach] * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, taps[None, None, None]), taps[None, None, :, None])[:, 0]


def mix_convolved(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """(B, 3, H, W) in [-1, 1], a `share` of them mixed with their random convolution (arXiv 2007.13003).

    Shapes stay. Colors and fine texture change, because those of rendered images differ from a camera's.
    """
    count, channels = images.shape[:2]
    size = FILTER_SIZES[int(torch.randint(len(FILTER_SIZES), (), generator=generator))]
    filters = torch.randn(count * channels, channels, size, size, generator=generator) / (channels * size**2) ** 0.5
    padded = F.pad(images, [size // 2] * 4, mode="reflect")
    filtered = F.conv2d(padded.flatten(0, 1)[None], filters, groups=count)[0].unflatten(0, (count, channels))
    chosen = torch.rand(count, 1, 1, 1, generator=generator) < share
    part = torch.where(chosen, torch.rand(count, 1, 1, 1, generator=generator), 0.0)
    return torch.lerp(images, filtered, part).clamp(-1, 1)
