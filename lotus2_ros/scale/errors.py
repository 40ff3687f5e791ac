"""From the errors at the held-out points of a reference to the errors between them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from lotus2_ros.scale.membrane import GridLevel, fit_points

# Parts of the points; each is held out once.
FOLDS = 4
# Errors are noisy: a point pulls less at their logarithm than at the field, and they fall to the line's sooner.
PULL, REST = 1.0, 30.0
# Shares of depth: no reference measures better than the first, and no error is taken to be smaller than the second.
FLOOR, LEAST = 0.005, 0.001
# This share of a normal distribution lies within one standard deviation.
WITHIN = 0.68


@dataclass(frozen=True)
class Errors:
    """Relative errors of depth as a field over the image, and how they compare with the errors at held-out points."""

    log_line: Tensor  # () logarithm of the standard deviation of the line
    log_excess: Tensor  # (h, w) of each cell, over that of the line
    reach: Tensor  # (h, w) from 0, no point is near, to 1
    quotient: Tensor  # (N,) error of a held-out point over what the other points make of it
    log_depth: Tensor  # (N,) measured
    believed: Tensor  # (N,) from 0 to 1

    def to(self, device: torch.device) -> Errors:
        return Errors(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def fit_errors(
    grids: list[GridLevel], v: Tensor, u: Tensor, of_line: Tensor, error: Tensor, log_depth: Tensor, believed: Tensor
) -> Errors:
    """Errors between points (N,) in cells (v, u) of the finest of ``grids``.

    Args:
        of_line, error: relative errors of depth at each point, of the line and of the depth that was not told the
            point.
        log_depth: of each point.
        believed: from 0 to 1; 0 for a wrong point.
    """
    log_line = _quantile(of_line, believed, WITHIN).clamp_min(FLOOR).log()
    values = (error.clamp_min(FLOOR).log() - log_line).expand(FOLDS + 2, -1).clone()
    values[-1] = 1
    fold = torch.arange(len(error), device=error.device) % FOLDS
    # The last two keep all points: of the errors, and of ones, which tells how far a point reaches.
    pulls = PULL * (fold != torch.arange(FOLDS + 2, device=fold.device)[:, None]) * believed
    found = torch.zeros(len(pulls), 1, 1, device=error.device)
    for number, grid in enumerate(grids):
        shrink = 2 ** (len(grids) - 1 - number)
        found = fit_points(
            replace(grid, rest=REST * grid.rest, rise=None), v // shrink, u // shrink, values, pulls, found
        )
    quotient = error.clamp_min(LEAST) / (log_line + found[fold, v, u]).exp()
    return Errors(log_line, found[FOLDS], found[FOLDS + 1].clamp(0, 1), quotient, log_depth, believed)


def _quantile(values: Tensor, weights: Tensor, share: float) -> Tensor:
    """Weighted quantile () of values (N,)."""
    order = values.argsort()
    counted = weights[order].cumsum(0)
    return values[order][torch.searchsorted(counted, share * counted[-1:]).clamp_max(len(order) - 1)][0]
