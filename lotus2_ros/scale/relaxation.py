"""Surfaces with given slopes, and with steps between them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Two cells of one surface differ by less than this, in log depth, from what the slope says; and a cell by less than
# this from its target. What differs by more counts less and less: as a step, or as wrong.
STEP, WRONG = 0.0375, 0.05
# The weights are found this often, and after each time so many sweeps are made: from a start that is nearly right.
REWEIGHTINGS, SWEEPS = 3, 8
OVER_RELAXATION = 1.7


def relax(start: Tensor, slope: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The log depth u (h, w) that minimizes, over all cells i and their neighbors j,

        sum_ij rho((u_j - u_i - slope_ij) / STEP)  +  sum_i weight_i rho'((u_i - target_i) / WRONG)

    from ``start`` on, roughly. rho and rho' are the penalties of Geman and McClure (1987) and of Cauchy, so that there
    are steps where the slopes do not fit and outliers of the target do not count. It is found by iteratively reweighted
    least squares, with the semi-iteration of Jacobi's method (Golub and Varga 1961).

    Args:
        start, target: (h, w) log depth.
        slope: (2, h, w) how much log depth rises down and across from one cell to the next.
        weight: (h, w) of the target; that of a slope is 1.
    """
    rise_down, rise_across = (slope[0, 1:] + slope[0, :-1]) / 2, (slope[1, :, 1:] + slope[1, :, :-1]) / 2
    surface = start.clone()
    for _ in range(REWEIGHTINGS):
        below, above, right, left = _shifted(surface)
        vertical = _trust(below - above - rise_down, STEP).square_()
        horizontal = _trust(right - left - rise_across, STEP).square_()
        total = weight * _trust(surface - target, WRONG)
        given = total * target
        below, above, right, left = _shifted(given)
        for after, before, rise in ((below, above, vertical * rise_down), (right, left, horizontal * rise_across)):
            after += rise
            before -= rise
        below, above, right, left = _shifted(total)
        for part, links in ((below, vertical), (above, vertical), (right, horizontal), (left, horizontal)):
            part += links
        _sweep(surface, given / total, (vertical / below, vertical / above, horizontal / right, horizontal / left))
    return surface


def _sweep(surface: Tensor, given: Tensor, links: Sequence[Tensor]) -> None:
    """Solve, in place, surface = given + the cells above, below, to the left and to the right, times their links."""
    mean = torch.empty_like(surface)
    below, above, right, left = _shifted(mean)
    # Two grids in turn; their parts are made once, because a part costs as much as a sum on a small grid.
    now, past = ((grid, _shifted(grid)) for grid in (surface, surface.clone()))
    for sweep in range(SWEEPS):
        mean.copy_(given)
        from_below, from_above, from_right, from_left = now[1]
        below.addcmul_(links[0], from_above)
        above.addcmul_(links[1], from_below)
        right.addcmul_(links[2], from_left)
        left.addcmul_(links[3], from_right)
        past[0].lerp_(mean, OVER_RELAXATION if sweep else 1.0)
        now, past = past, now
    surface.copy_(now[0])


def _shifted(grid: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A grid (h, w) without its first row, last row, first column, last column."""
    return grid[1:], grid[:-1], grid[:, 1:], grid[:, :-1]


def _trust(error: Tensor, scale: float) -> Tensor:
    """From 1, no error, to 0."""
    return (error / scale).square_().add_(1).reciprocal_()
