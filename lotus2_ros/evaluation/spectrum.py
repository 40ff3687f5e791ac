"""Detail of a disparity: its radially averaged power spectrum (Fig. 12 of Lotus-2, arXiv 2512.01030)."""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 40  # of spatial frequency, up to the Nyquist frequency


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


def _frequency(power: Tensor) -> Tensor:
    """Lengths (H, W) of the frequencies in units of the Nyquist frequency, half a cycle per pixel."""
    rows, columns = (2 * torch.fft.fftfreq(size, dtype=torch.float64, device=power.device) for size in power.shape)
    return torch.hypot(rows[:, None], columns)
