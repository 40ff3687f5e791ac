"""From the errors at the held-out points of a reference to the errors between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lotus2_ros.scale.grid import Tiles
from lotus2_ros.scale.interpolation import Neighbors

# Errors are noisy: their logarithm is averaged over more points than the field, with a lower power of distance, and the
# error of the line counts as much as that of a point at this distance.
POWER, LINE = 2, 1.0
# Shares of depth: no reference measures better than the first, and no error is taken to be smaller than the second.
FLOOR, LEAST = 0.002, 0.001
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


def fit_errors(
    tiles: Tiles,
    near: Neighbors,
    others: Neighbors,
    of_line: Tensor,
    error: Tensor,
    log_depth: Tensor,
    believed: Tensor,
) -> Errors:
    """Errors between points (N,).

    Args:
        near, others: the points around the cells of ``tiles``, and the other points around each point.
        of_line, error: relative errors of depth at each point, of the line and of the depth that was not told the
            point.
        log_depth: of each point.
        believed: from 0 to 1; 0 for a wrong point.
    """
    log_line = weighted_quantile(of_line, believed, WITHIN).clamp_min(FLOOR).log()
    values = error.clamp_min(FLOOR).log() - log_line
    of_cells, weights = near.mean(near.of(values), believed, LINE, POWER)
    reach = weights / (weights + LINE ** (-2 * POWER))
    of_points, _ = others.mean(others.of(values), believed, LINE, POWER)
    quotient = error.clamp_min(LEAST) / (log_line + of_points[:, 0]).exp()
    return Errors(log_line, tiles.join(of_cells), tiles.join(reach), quotient, log_depth, believed)


def weighted_quantile(values: Tensor, weights: Tensor, share: float | Tensor) -> Tensor:
    """The value () that this share of the weights (N,) is below; values (N,)."""
    order = values.argsort()
    counted = weights[order].cumsum(0)
    return values[order][torch.searchsorted(counted, share * counted[-1:]).clamp_max(len(order) - 1)][0]
