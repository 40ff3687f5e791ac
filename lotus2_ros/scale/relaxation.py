"""Surfaces with given slopes, and with steps between them."""

from __future__ import annotations

import torch
from torch import Tensor

# Two cells of one surface differ by less than this, in log depth, from what the slope says; and a cell by less than
# this from its target. What differs by more counts less and less: as a step, or as wrong.
STEP, WRONG = 0.0325, 0.05
# The weights are found this often, and after each time so many sweeps are made: from a start that is nearly right.
REWEIGHTINGS, SWEEPS = 2, 8
OVER_RELAXATION = 1.7
# A rise of log depth over the border of the grid: a step that leaves no link.
APART = 1e15


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
    rise = start.new_full((2, *start.shape), APART)
    torch.add(slope[1, :, :-1], slope[1, :, 1:], out=rise[0, :, :-1])
    torch.add(slope[0, :-1], slope[0, 1:], out=rise[1, :-1])
    rise = rise.flatten(1).div_(2)
    target, weight = target.flatten(), weight.flatten()
    now, past = _Surface(start), _Surface(start)
    links, flow = _Links(start), _Links(start)
    for _ in range(REWEIGHTINGS):
        torch.pow(_loss(now.after - now.cells - rise, STEP), -2, out=links.after)
        torch.mul(links.after, rise, out=flow.after)
        total = weight / _loss(now.cells - target, WRONG)
        mean = (total * target).add_(flow.left).sub_(flow.right).add_(flow.above).sub_(flow.below)
        share = total.add_(links.left).add_(links.right).add_(links.above).add_(links.below).reciprocal_()
        mean *= share
        left, right, above, below = (share * each for each in (links.left, links.right, links.above, links.below))
        for sweep in range(SWEEPS):
            found = torch.addcmul(mean, left, now.left).addcmul_(right, now.right)
            found.addcmul_(above, now.above).addcmul_(below, now.below)
            past.cells.lerp_(found, OVER_RELAXATION if sweep else 1.0)
            now, past = past, now
    return now.cells.view_as(start)


class _Surface:
    """The cells (h * w,) of a grid, and the neighbors of each: parts of one tensor, which cost nothing to update.

    For a neighbor that is not there a cell at the border has some other cell or zero; no link leads to it.
    """

    def __init__(self, grid: Tensor) -> None:
        width, count = grid.shape[1], grid.numel()
        padded = grid.new_zeros(width + count + width)
        self.cells, self.left, self.above = padded[width:-width], padded[width - 1 : -width - 1], padded[:count]
        self.after = padded.as_strided((2, count), (width - 1, 1), width + 1)  # to the right and below
        self.right, self.below = self.after
        self.cells.copy_(grid.flatten())


class _Links:
    """A value (h * w,) for the link of each cell of a grid with each of its neighbors: parts of one tensor."""

    def __init__(self, grid: Tensor) -> None:
        width, count = grid.shape[1], grid.numel()
        padded = grid.new_zeros(2, width + count)
        self.after = padded[:, width:]  # to the right and below
        self.right, self.below = self.after
        self.left, self.above = padded[0, width - 1 : -1], padded[1, :count]


def _loss(error: Tensor, scale: float) -> Tensor:
    """From 1, no error, upwards: 1 + (error / scale)^2."""
    return torch.addcmul(error.new_ones(()), error, error, value=scale**-2)
