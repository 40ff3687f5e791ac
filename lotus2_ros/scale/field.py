"""The local field: what the points of a reference say beyond scale and shift, interpolated over the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lotus2_ros.scale.errors import Errors, fit_errors
from lotus2_ros.scale.grid import Tiles, taken
from lotus2_ros.scale.interpolation import Neighbors, find_neighbors
from lotus2_ros.scale.reference import Reference, sample_reference
from lotus2_ros.scale.relaxation import relax
from lotus2_ros.scale.scale import RelativeGeometry, Scale
from lotus2_ros.scale.surface import SurfaceSamples, sample_surfaces
from lotus2_ros.scale.tracker import thumbnail_size

# Cells along the longer side of the grid, and along the sides of its tiles; and both where more points than this are
# measured.
SIDE, TILE, FINE_SIDE, FINE_TILE, MANY = 128, 8, 160, 4, 800
# The line counts as much as a point at this distance, in spacings of points, and at least this share of the image's
# longer side: far from all points it is left.
LINE, REACH = 2.5, 0.05
# Candidates of how many points to believe. A point has no weight below this support and full weight RAMP above it; the
# first candidate believes all. Fewer are believed only if the error at held-out points is smaller by this factor.
SUPPORT, RAMP, HANDICAP = (-1.0, 0.3, 0.5), 0.3, 1.15
# Agreement of two points falls to 1 / e at this difference of log depth. Support is the mean agreement with the points
# around. They have more equal weights than in the field, so that a wrong neighbor decides little.
AGREEMENT, SUPPORT_POWER = 0.1, 0.5
# Errors of log depth at held-out points count less and less beyond this one.
BOUND = 0.2
# The field is off if its gain at held-out points is below the first number of standard errors, and counts in full above
# the second.
CERTAINTY = (1.0, 3.0)
# The line may put pixels beyond infinity. What it puts farther than this many times the farthest points counts as that
# far. The share of points that may be farther than "the farthest", and how many points tell it.
BEYOND, FARTHER, FAR_SAMPLE = 2.0, 0.02, 512
# Weights, over that of a slope between two cells: of the field before it is relaxed, everywhere and for the weights of
# the points there; and of a point in its cell, which alone would leave pits around points.
HELD, HELD_NEAR, HELD_AT_POINT = 0.007, 0.005, 0.7
# The error of relaxed surfaces over that of the field before, which is the one that is known at held-out points.
RELAXED = 0.93


@dataclass(frozen=True)
class Field:
    """A field, and how much it improves the held-out points."""

    log_factor: Tensor  # (h, w) logarithm of a factor on depth
    error: float  # median relative error of depth at held-out points
    farthest: float  # meters; the factor is on this depth where the line puts a pixel farther or beyond infinity
    errors: Errors | None = None  # what the held-out points tell of the errors elsewhere


def fit_field(
    frame: RelativeGeometry, scale: Scale, reference: Reference, *, use: bool = True, with_errors: bool = False
) -> Field:
    """The field that takes the depth of ``scale`` to the measurements of ``reference``.

    Each point carries its depth to the cells around it, on a grid of at most 128 cells per side, or 160 for many
    points. On the way depth rises as the normals say, or, without normals, as the line does. A cell takes the mean of
    the line and of what the points carry to it, mostly of those that are near and look alike. Then the surfaces are
    given the slopes of the normals. Each point is held out once: this tells how many points to believe, and whether the
    field helps. If it does not, it is weaker or zero. Without ``use`` it is zero, and its error is that of the line.
    """
    frame = frame.on_host
    down, across, measured = sample_reference(reference)
    some = 1 / measured[:: 1 + len(measured) // FAR_SAMPLE].float()
    far = some.kthvalue(1 + int(FARTHER * len(some))).values
    side, tile = (FINE_SIDE, FINE_TILE) if len(measured) > MANY else (SIDE, TILE)
    tiles = Tiles(*thumbnail_size(frame.disparity.shape[0], frame.disparity.shape[1], side), tile)
    cells, points = sample_surfaces(frame, scale, tiles, down, across, far / BEYOND)
    log_depth = measured.log().float()
    residual = log_depth - points.log_depth
    near = find_neighbors(tiles, cells, points)
    carried = _carried(near, cells, points, log_depth)
    around, told = near.at(tiles.of(points.place), carried)
    others = around.without(torch.arange(len(measured)))
    line = max(LINE, REACH * side / tiles.spacing(len(measured)))
    held_out, believed = _believed(others, told, residual, line)
    strength = _strength(residual, held_out, believed) if use else torch.zeros_like(residual[0])
    field, weights = (tiles.join(each) for each in near.mean(carried, believed, line))
    error = (residual - strength * held_out).expm1().abs()
    if use and cells.slope is not None:
        grid = tiles.join(torch.cat((cells.log_depth[None], cells.slope)))
        start = grid[0] + field
        field = _relaxed(start, HELD + HELD_NEAR * weights, grid[1:], points, log_depth, believed) - grid[0]
        error *= RELAXED
    errors = None
    if with_errors:
        errors = fit_errors(tiles, near, others, residual.expm1().abs(), error, log_depth, believed)
    median, far = torch.stack((error.median(), far)).tolist()
    return Field(strength * field, median, BEYOND / far, errors)


def _carried(near: Neighbors, cells: SurfaceSamples, points: SurfaceSamples, log_depth: Tensor) -> Tensor:
    """The log depth of each neighbor, carried to the cells (T, P): (T, K, P), over the line there.

    ``log_depth`` (N,) is measured at ``points``.
    """
    if cells.slope is None or points.slope is None:
        return near.of(log_depth - points.log_depth).expand_as(near.apart)
    # From one place to the other depth rises by the mean of both slopes. The sum of all terms,
    #     log_depth + (cell.slope + point.slope) / 2 . (cell.place - point.place) - cell.log_depth,
    # is one product of matrices for each tile.
    of_point = log_depth - (points.slope * points.place).sum(0) / 2
    of_cell = (cells.slope * cells.place).sum(0) / 2 - cells.log_depth
    left = torch.cat((points.slope / 2, points.place / -2, torch.stack((of_point, torch.ones_like(of_point)))))
    right = torch.cat((cells.place, cells.slope, torch.stack((torch.ones_like(of_cell), of_cell))))
    return taken(left, near.index).permute(1, 2, 0) @ right.transpose(0, 1)


def _relaxed(
    start: Tensor, held: Tensor, slope: Tensor, points: SurfaceSamples, log_depth: Tensor, believed: Tensor
) -> Tensor:
    """The log depth (h, w) of surfaces with a ``slope`` (2, h, w).

    They are ``held`` (h, w) at ``start`` (h, w), and at the points (N,) in their cells.
    """
    assert points.slope is not None
    cell = points.place.long()
    number = cell[0] * start.shape[1] + cell[1]
    in_cell = log_depth + (points.slope * (cell + 0.5 - points.place)).sum(0)
    weight, weighted = held.flatten(), (held * start).flatten()
    weight.index_add_(0, number, HELD_AT_POINT * believed)
    weighted.index_add_(0, number, HELD_AT_POINT * believed * in_cell)
    target, weight = (each.view_as(start) for each in (weighted / weight, weight))
    return relax(start, slope, target, weight)


def _believed(others: Neighbors, carried: Tensor, residual: Tensor, line: float) -> tuple[Tensor, Tensor]:
    """The field at each point (N,) that is not told the point, and how much to believe the point (N,), from 0 to 1.

    ``carried`` (N, K, 1): by the ``others`` around each point. ``line``: the distance of the line.
    """
    agreement = ((carried - residual[:, None, None]).abs() / -AGREEMENT).exp()
    support, _ = others.mean(agreement, torch.ones_like(residual), torch.inf, SUPPORT_POWER)
    support = support[:, 0] / support.median().clamp_min(1e-9)
    candidates = ((support - support.new_tensor(SUPPORT)[:, None]) / RAMP).clamp(0, 1)
    held_out = others.mean(carried, candidates, line)[0][..., 0]
    loss = _bounded(residual - held_out).mean(1)
    loss[1:] *= HANDICAP
    best = loss.argmin(0, keepdim=True)
    return held_out[best][0], candidates[best][0]


def _strength(residual: Tensor, held_out: Tensor, believed: Tensor) -> Tensor:
    """From 0 to 1: how much of the field to use, by how sure it is that it improves the held-out residuals."""
    gain = believed * (_bounded(residual) - _bounded(residual - held_out))
    certainty = gain.sum() / gain.square().sum().sqrt().clamp_min(1e-12)
    low, high = CERTAINTY
    return ((certainty - low) / (high - low)).clamp(0, 1)


def _bounded(error: Tensor) -> Tensor:
    return error.abs() / (error.abs() + BOUND)
