"""From linear light to a photograph: exposure, blur, color, noise and compression artifacts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# What a blur's width and the sampling of the exposure are measured in: pixels of an image this wide.
SIDE = 160


def photograph(radiance: Tensor, depth: Tensor, rng: np.random.Generator) -> Tensor:
    """Linear radiance (H, W, 3) and depth (H, W) to uint8 RGB, by a camera drawn from `rng`."""
    light = _blurred(radiance * _vignette(radiance, rng), depth, rng)
    stride = max(1, max(radiance.shape) // SIDE)
    level = light[::stride, ::stride].mean(-1).quantile(0.8)
    # Now and then the automatic exposure is wrong.
    gain = (rng.uniform(0.12, 2.0) if rng.random() < 0.2 else rng.uniform(0.3, 0.85)) / level.clamp_min(1e-4)
    balance = torch.from_numpy(rng.normal(1, 0.07, 3)).float()
    image = (1 - torch.exp(-1.3 * light * gain * balance)).clamp(0, 1) ** (1 / 2.2)
    image = _graded(image, rng)
    read, shot = rng.uniform(0.001, 0.012), rng.uniform(0, 0.025)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    image = image + torch.randn(image.shape, generator=generator) * torch.sqrt(read**2 + shot**2 * image.clamp(0, 1))
    if rng.random() < 0.15:
        image = compressed(image, rng.uniform(0.02, 0.08))
    return (image * 255).round().clamp(0, 255).to(torch.uint8)


def _vignette(radiance: Tensor, rng: np.random.Generator) -> Tensor:
    """(H, W, 1): darker toward the corners, for some cameras."""
    strength = rng.uniform(0.1, 0.5) if rng.random() < 0.35 else 0.0
    height, width = radiance.shape[:2]
    v, u = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return (1 - strength * (u**2 + v**2) / 2)[..., None]


def _blurred(light: Tensor, depth: Tensor, rng: np.random.Generator) -> Tensor:
    """Out of focus everywhere or off one depth, or moved; more than half are sharp."""
    kind, pixel = rng.random(), light.shape[1] / SIDE
    if kind < 0.25:
        return _convolved(light, _disc(pixel * rng.uniform(0.5, 1.3)))
    if kind < 0.32:
        focus = depth.flatten()[int(rng.integers(depth.numel()))].clamp_max(100.0)
        off = (1 - focus / depth).abs().clamp(0, 1)[..., None]
        return torch.lerp(light, _convolved(light, _disc(pixel * rng.uniform(1.0, 2.5))), off)
    if kind < 0.42:
        length, angle = pixel * rng.uniform(1.5, 5), rng.uniform(0, np.pi)
        return _convolved(light, _streak(length, angle))
    return light


def _disc(radius: float) -> Tensor:
    reach = int(np.ceil(radius)) + 1
    v, u = torch.meshgrid(*2 * [torch.arange(-reach, reach + 1.0)], indexing="ij")
    return (radius + 0.5 - torch.hypot(u, v)).clamp(0, 1)


def _streak(length: float, angle: float) -> Tensor:
    reach = int(np.ceil(length / 2)) + 1
    v, u = torch.meshgrid(*2 * [torch.arange(-reach, reach + 1.0)], indexing="ij")
    along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    return (length / 2 + 0.5 - along.abs()).clamp(0, 1) * (1 - across.abs()).clamp(0, 1)


def _convolved(light: Tensor, kernel: Tensor) -> Tensor:
    reach = len(kernel) // 2
    padded = F.pad(light.permute(2, 0, 1)[:, None], (reach,) * 4, mode="replicate")
    return F.conv2d(padded, (kernel / kernel.sum())[None, None])[:, 0].permute(1, 2, 0)


def _graded(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Saturation and contrast; some cameras see no color, some a veil."""
    saturation = 0.0 if rng.random() < 0.08 else rng.uniform(0.5, 1.25)
    gray = image.mean(-1, keepdim=True)
    veil = rng.uniform(0, 0.4) if rng.random() < 0.2 else 0.0
    pivot = rng.uniform(0.3, 0.7)
    contrast = rng.uniform(0.85, 1.25) * (1 - veil)
    return ((torch.lerp(gray, image, saturation) - pivot) * contrast + pivot).clamp(0, 1)


def compressed(image: Tensor, step: float) -> Tensor:
    """Cosine coefficients of blocks of 8 x 8, rounded the more coarsely the higher their frequency, as in JPEG."""
    k, n = torch.arange(8.0)[:, None], torch.arange(8.0)[None]
    basis = torch.cos(torch.pi * (2 * n + 1) * k / 16) * torch.where(k > 0, 0.5, 0.125**0.5)
    height, width = image.shape[:2]
    padded = F.pad(image.permute(2, 0, 1)[None], (0, -width % 8, 0, -height % 8), mode="replicate")[0]
    blocks = padded.unfold(1, 8, 8).unfold(2, 8, 8)
    steps = step * (1 + k + n)
    rounded = basis.T @ ((basis @ blocks @ basis.T / steps).round() * steps) @ basis
    return rounded.transpose(2, 3).reshape(padded.shape)[:, :height, :width].permute(1, 2, 0)
