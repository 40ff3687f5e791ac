"""Calibrates standard deviations: a factor by range, from the errors at held-out points."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lotus2_ros.model.engine.device import upload
from lotus2_ros.scale.errors import Errors, weighted_quantile

# Half the width, in standard deviations, of the interval that holds 90 % of a normal distribution.
INTERVAL = 1.645
# Share of the held-out errors outside of the interval. Less than 10 % is wanted of the depth itself, which is told all
# points: at points that it is not told its errors are a little larger.
OUTSIDE = 0.13
# Points of equal number that each range has a factor of its own; and how many points count as much as those of all
# ranges together do for it.
RANGES, POOLED = 3, 30
# The errors kept, and what is left of their weight after each newer reference.
KEPT, FORGET = 4096, 0.9
# Points that are taken for granted, at this quotient: a few points tell little of an interval.
GRANTED, USUAL = 5.0, 1.6


@dataclass(frozen=True)
class RangeFactor:
    """A factor on the standard deviation that changes with the logarithm of depth."""

    log_depth: Tensor  # (RANGES,) in the middle of each range, near first
    log_factor: Tensor  # (RANGES,)

    def to(self, device: torch.device) -> RangeFactor:
        return RangeFactor(upload(self.log_depth, device), upload(self.log_factor, device))

    def log_at(self, log_depth: Tensor) -> Tensor:
        """Logarithm of the factor, linear between the middles of the ranges and constant beyond."""
        knots = self.log_depth
        right = torch.bucketize(log_depth, knots).clamp(1, len(knots) - 1)
        share = (log_depth - knots[right - 1]) / (knots[right] - knots[right - 1]).clamp_min(1e-6)
        return torch.lerp(self.log_factor[right - 1], self.log_factor[right], share.clamp(0, 1))


class SpreadCalibration:
    """The errors of the last references, as quotients of what was said of them; old ones count less and less."""

    def __init__(self) -> None:
        self._kept = torch.empty(4, 0)  # quotient, log depth, and weights: by how recent, and by how much believed too

    def add(self, errors: Errors) -> None:
        """Add the points of one reference."""
        new = torch.stack((errors.quotient, errors.log_depth, torch.ones_like(errors.quotient), errors.believed))
        self._kept[2:] *= FORGET
        self._kept = torch.cat((new, self._kept), 1)[:, :KEPT]

    def factor(self) -> RangeFactor:
        """The factor that puts 90 % of the errors into their intervals, in each range."""
        near_first = self._kept[:, self._kept[1].argsort()]
        ranges = near_first.tensor_split(RANGES, 1)
        middles = torch.stack([kept[1, kept.shape[1] // 2] for kept in ranges])
        own = torch.stack([_log_factor(kept) for kept in ranges])
        share = near_first.shape[1] / (near_first.shape[1] + RANGES * POOLED)
        return RangeFactor(middles, torch.lerp(_log_factor(near_first).expand(RANGES), own, share))


def _log_factor(kept: Tensor) -> Tensor:
    """Logarithm of the factor that leaves the wanted share of the errors (4, N) outside."""
    quotient, _, recent, weight = kept
    # Right points with large errors are among those that are not believed.
    outside = OUTSIDE * (weight.sum() / recent.sum()).square()
    quotient, weight = (torch.cat((v, v.new_tensor([more]))) for v, more in ((quotient, USUAL), (weight, GRANTED)))
    return (weighted_quantile(quotient, weight, 1 - outside) / INTERVAL).log()
