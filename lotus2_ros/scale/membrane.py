"""A membrane over the cells of a small grid that measurements pull at, solved coarse to fine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# A difference of this much between two cells' features holds as little together as the width of the image.
FEATURE_SCALE = 1.0
# Pull of one measurement, in units of the tension between neighbors.
PULL = 25.0
# Pull to zero of a square as wide as the image: without measurements the membrane falls to zero within most of it.
REST = 2.0
# Cells along the longer side of the coarsest grid.
COARSEST = 10
# Most that the membrane is made to rise from one cell to the next. More is an edge, and not a slope.
STEEPEST = 0.3
# Steps of conjugate gradients at each level.
STEPS = 4


@dataclass(frozen=True)
class GridLevel:
    """The tension between neighbors of one grid (h, w): cells that look different hold together less."""

    across: Tensor  # (h, w - 1)
    down: Tensor  # (h - 1, w)
    rest: float  # pull to zero
    # How much the membrane rises from each cell to the next if nothing pulls; None: it is level.
    rise: tuple[Tensor, Tensor] | None = None  # (h, w - 1) across, (h - 1, w) down

    def solve(self, pull: Tensor, target: Tensor, start: Tensor) -> Tensor:
        """The membrane (B, h, w): least pull * (x - target)^2 + rest * x^2 + tension * (differences of x - rise)^2.

        ``target`` is already multiplied by ``pull``. A fixed number of steps of conjugate gradients with the diagonal
        as preconditioner, so that a device never waits for a result.
        """
        diagonal = pull + self.rest
        self._add_tension(diagonal)
        if self.rise is not None:
            across, down = self.across * self.rise[0], self.down * self.rise[1]
            target = target + F.pad(across, (1, 0)) - F.pad(across, (0, 1))
            target += F.pad(down, (0, 0, 1, 0)) - F.pad(down, (0, 0, 0, 1))
        inverse = diagonal.reciprocal()
        x = start
        residual = target - self._apply(diagonal, x)
        step = direction = inverse * residual
        energy = (residual * step).sum((-2, -1), keepdim=True)
        for _ in range(STEPS):
            image = self._apply(diagonal, direction)
            length = energy / (direction * image).sum((-2, -1), keepdim=True).clamp_min(1e-20)
            x = torch.addcmul(x, length, direction)
            residual = torch.addcmul(residual, length, image, value=-1)
            step = inverse * residual
            last, energy = energy, (residual * step).sum((-2, -1), keepdim=True)
            direction = torch.addcmul(step, energy / last.clamp_min(1e-20), direction)
        return x

    def _add_tension(self, diagonal: Tensor) -> None:
        diagonal[..., 1:] += self.across
        diagonal[..., :-1] += self.across
        diagonal[..., 1:, :] += self.down
        diagonal[..., :-1, :] += self.down

    def _apply(self, diagonal: Tensor, x: Tensor) -> Tensor:
        out = diagonal * x
        out[..., 1:].addcmul_(self.across, x[..., :-1], value=-1)
        out[..., :-1].addcmul_(self.across, x[..., 1:], value=-1)
        out[..., 1:, :].addcmul_(self.down, x[..., :-1, :], value=-1)
        out[..., :-1, :].addcmul_(self.down, x[..., 1:, :], value=-1)
        return out


def levels(features: Tensor, surface: Tensor | None = None) -> list[GridLevel]:
    """Grids from coarse to fine for features (C, h, w); each has half the cells per side of the next.

    ``surface`` (3, h, w): the surface that the membrane will be added to, and how much the sum should rise from cell to
    cell, across and down.
    """
    found = []
    spacing = 1 / max(features.shape[-2:])
    for number in range(1 + round(math.log2(max(1.0, 1 / (COARSEST * spacing))))):
        if number:
            features = _halved(features)
            spacing *= 2
            if surface is not None:
                surface = _halved(surface)
                surface[1:] *= 2
        across, down = (
            (1 + features.diff(dim=dim).square().sum(0) / (FEATURE_SCALE * spacing) ** 2).rsqrt() for dim in (2, 1)
        )
        found.append(GridLevel(across, down, REST * spacing**2, None if surface is None else _rise(surface)))
    return found[::-1]


def _rise(surface: Tensor) -> tuple[Tensor, Tensor]:
    base, across, down = surface
    return (
        ((across[:, 1:] + across[:, :-1]) / 2 - base.diff(dim=1)).clamp(-STEEPEST, STEEPEST),
        ((down[1:] + down[:-1]) / 2 - base.diff(dim=0)).clamp(-STEEPEST, STEEPEST),
    )


def _halved(grids: Tensor) -> Tensor:
    return F.avg_pool2d(grids[None], 2, ceil_mode=True, count_include_pad=False)[0]


def fit_points(grid: GridLevel, v: Tensor, u: Tensor, values: Tensor, pulls: Tensor, start: Tensor) -> Tensor:
    """Membranes (B, h, w) at whose cells (v, u) values (B, N) or (N,) pull with ``pulls`` (B, N).

    ``start``: coarser membranes (B, h', w').
    """
    height, width = grid.down.shape[0] + 1, grid.across.shape[1] + 1
    cell = (v * width + u).expand(2 * len(pulls), -1)
    sums = torch.zeros(2 * len(pulls), height * width, device=pulls.device)
    pull, target = sums.scatter_add_(1, cell, torch.cat((pulls, pulls * values))).view(2, -1, height, width)
    return grid.solve(pull, target, resized(start, height, width))


def resized(grid: Tensor, height: int, width: int) -> Tensor:
    """Grids (B, h, w) resized bilinearly to (B, height, width)."""
    return F.interpolate(grid[None], (height, width), mode="bilinear", align_corners=False)[0]
