"""What an uncertainty is worth: whether the pixels it doubts are those that are wrong.

Sparsification (Ilg et al., ECCV 2018): pixels are left out, the most uncertain first, and the mean error of the rest is
looked at. The area between that curve and the one of the true errors' own order is the AUSE; 0 is perfect.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sparsification:
    """Areas over the oracle's curve, in units of the mean error of all pixels."""

    ause: float
    random: float  # of leaving out pixels in random order: what any useful uncertainty is below


def sparsification(error: Tensor, uncertainty: Tensor) -> Sparsification:
    """Of errors (N,) that are not negative, with the uncertainty (N,) of each. NaN where all errors are 0."""
    if error.shape != uncertainty.shape or error.ndim != 1:
        raise ValueError(f"expected errors and uncertainties (N,), got {(*error.shape,)}, {(*uncertainty.shape,)}")
    error = error.double()
    oracle, sorted_by_it = (_curve(error, order) for order in (error, uncertainty.double()))
    return Sparsification(float((sorted_by_it - oracle).mean()), float((1 - oracle).mean()))


def _curve(error: Tensor, order: Tensor) -> Tensor:
    """Mean error of the n pixels that come first in `order`, over that of all, for n = 1 to N."""
    kept = error[order.argsort(stable=True)].cumsum(0)
    count = torch.arange(1, len(error) + 1, dtype=torch.float64, device=error.device)
    return kept / count / error.mean()
