"""Quality of an uncertainty: whether uncertain pixels are those with large errors.

Sparsification (Ilg et al., ECCV 2018): remove pixels, the most uncertain first, and plot the mean error of the rest.
The oracle's curve removes those with the largest errors first. The area between the two is the AUSE; 0 is perfect.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lotus2_ros.evaluation.metrics import INDOORS_AND_STREETS, in_range


@dataclass(frozen=True)
class Sparsification:
    """Areas above the oracle's curve, in units of the mean error of all pixels."""

    ause: float
    random: float  # of removing pixels in random order; a useful uncertainty has a lower AUSE


def depth_sparsification(depth: Tensor, truth: Tensor, disparity_std: Tensor) -> Sparsification:
    """For the relative errors of a fitted depth, by the deviation of the disparity that it comes from; all (H, W).

    depth = 1 / (scale disparity + shift), so to first order the relative deviation of depth is that of the disparity
    times depth and scale. The scale is the same for all pixels and does not change their order.
    """
    known = in_range(truth, INDOORS_AND_STREETS)
    return sparsification((depth / truth - 1).abs()[known], (depth * disparity_std)[known])


def sparsification(error: Tensor, uncertainty: Tensor) -> Sparsification:
    """For errors (N,), not negative, and their uncertainties (N,). NaN if all errors are 0."""
    if error.shape != uncertainty.shape or error.ndim != 1:
        raise ValueError(f"expected errors and uncertainties (N,), got {(*error.shape,)}, {(*uncertainty.shape,)}")
    error = error.double()
    oracle, sorted_by_it = (_curve(error, order) for order in (error, uncertainty.double()))
    return Sparsification(float((sorted_by_it - oracle).mean()), float((1 - oracle).mean()))


def _curve(error: Tensor, order: Tensor) -> Tensor:
    """Mean error of the first n pixels by `order`, over that of all pixels, for n = 1 to N."""
    kept = error[order.argsort(stable=True)].cumsum(0)
    count = torch.arange(1, len(error) + 1, dtype=torch.float64, device=error.device)
    return kept / count / error.mean()
