"""Power spectra: the detail of a disparity (Fig. 12 of Lotus-2, arXiv 2512.01030), and grids of patches."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BINS = 40  # of spatial frequency, up to the Nyquist frequency
FEWEST_PATCHES = 12  # along a side of which `patch_grid` can tell the grid's frequency from those around it
LINE = 1  # bins to each side over which the window spreads one frequency


def power_spectrum(disparity: Tensor) -> Tensor:
    """Power (H, W) of each spatial frequency of `disparity` (H, W), in the order of torch.fft.fftfreq.

    The mean is removed and a Hann window applied, because the borders of an image are not edges of the scene. Raises
    ValueError if a value is not finite.
    """
    if not bool(torch.isfinite(disparity).all()):
        raise ValueError("expected a disparity that is finite everywhere, got NaN or Inf")
    rows, columns = (torch.hann_window(size, dtype=torch.float64, device=disparity.device) for size in disparity.shape)
    window = rows[:, None] * columns
    mean = (disparity * window).sum() / window.sum()
    return torch.fft.fft2((disparity - mean) * window).abs().square() / window.square().sum()


def radial_average(power: Tensor) -> Tensor:
    """Mean power, (BINS,), by the length of the frequency; the corners, which are beyond Nyquist, are left out."""
    frequency = _frequency(power)
    inside = frequency < 1
    index = (frequency[inside] * BINS).long()
    counts = torch.bincount(index, minlength=BINS).clamp_min(1)
    return torch.bincount(index, power[inside], minlength=BINS) / counts


def high_frequency_ratio(power: Tensor, truth: Tensor) -> float:
    """Power above half the Nyquist frequency, over that of the truth: 1 is right, less is blur, more is noise."""
    frequency = _frequency(power)
    high = (frequency >= 0.5) & (frequency < 1)
    return float(power[high].sum() / truth[high].sum())


def patch_grid(picture: Tensor, patch: int) -> float:
    """How much more power (..., H, W) has at the frequency of its patches than around it; 1: no grid shows.

    A model that predicts patches of `patch` pixels may repeat the same pattern in each. Compared are the means over a
    quarter of the frequency to each side. Geometric mean of the ratios across and down. Raises ValueError if a side has
    fewer than 12 patches, or if a value is not finite.
    """
    if not bool(torch.isfinite(picture).all()):
        raise ValueError("expected a picture that is finite everywhere, got NaN or Inf")
    return math.sqrt(_grid_across(picture, patch) * _grid_across(picture.mT, patch))


def _grid_across(picture: Tensor, patch: int) -> float:
    width = picture.shape[-1]
    place = round(width / patch)
    if place < FEWEST_PATCHES:
        raise ValueError(f"expected at least {FEWEST_PATCHES} patches of {patch} pixels along a side, got {place}")
    window = torch.hann_window(width, dtype=torch.float64, device=picture.device)
    lines = picture.double() - picture.double().mean(dim=-1, keepdim=True)
    power = torch.fft.rfft(lines * window).abs().square().flatten(0, -2).mean(dim=0).clamp_min(1e-30)
    near = place // 4
    below, above = power[place - near : place - LINE], power[place + LINE + 1 : place + near + 1]
    # Spectra fall by a power of the frequency: logarithms of both sides cancel that.
    around = (below.log().mean() + above.log().mean()) / 2
    return float(power[place - LINE : place + LINE + 1].mean() / around.exp())


def _frequency(power: Tensor) -> Tensor:
    """Lengths (H, W) of the frequencies in units of the Nyquist frequency, half a cycle per pixel."""
    rows, columns = (2 * torch.fft.fftfreq(size, dtype=torch.float64, device=power.device) for size in power.shape)
    return torch.hypot(rows[:, None], columns)
