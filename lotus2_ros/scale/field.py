"""The local field: the residuals of the scale and shift at the points of a reference, interpolated over the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lotus2_ros.scale.errors import FOLDS, Errors, fit_errors
from lotus2_ros.scale.membrane import PULL, GridLevel, fit_points, levels, resized
from lotus2_ros.scale.reference import Reference, sample_reference
from lotus2_ros.scale.scale import RelativeGeometry, Scale
from lotus2_ros.scale.support import support
from lotus2_ros.scale.tracker import THUMBNAIL_SIDE, thumbnail_size

# Differences that separate two surfaces: of log depth, and of the image's colors, which are in [0, 1].
EDGE_DEPTH, EDGE_COLOR = 0.2, 0.5
# Cells along the longer side of the grid where more points than this are measured. With fewer it is a thumbnail's.
FINE_SIDE, MANY = 160, 400
SAMPLES = 2  # pixels read from each cell and side
GRAZING = 0.1  # least cosine between a normal and its ray: nearly along a surface depth has no slope
# Candidates of how many points to believe. A point has no weight below this support and full weight RAMP above it; the
# first candidate believes all. Fewer are believed only if the error at held-out points is smaller by this factor.
SUPPORT, RAMP, HANDICAP = (-1.0, 0.2, 0.4), 0.3, 1.15
# Errors of log depth at held-out points count less and less beyond this one.
BOUND = 0.2
# The field is off if its gain at held-out points is below the first number of standard errors, and counts in full above
# the second.
CERTAINTY = (1.0, 3.0)
# The line may put pixels beyond infinity. What it puts farther than this many times the farthest points counts as that
# far. The share of points that may be farther than "the farthest", and how many points tell it.
BEYOND, FARTHER, FAR_SAMPLE = 2.0, 0.02, 512


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

    The residuals of log depth pull at a membrane over a grid of at most 80 cells per side, or 160 for many points, torn
    at edges of depth and image. Between the points the sum of log depth and membrane has the slopes of the normals.
    Each quarter of the points is held out once: this tells how many points to believe, and whether the field helps.
    If it does not, it is weaker or zero. Without ``use`` it is zero, and its error is that of the line.
    """
    down, across, measured, predicted = sample_reference(frame.disparity, reference)
    side = FINE_SIDE if len(measured) > MANY else THUMBNAIL_SIDE
    height, width = thumbnail_size(frame.disparity.shape[0], frame.disparity.shape[1], side)
    v, u = (down * height).long(), (across * width).long()
    inverse_depth = scale.scale * predicted + scale.shift
    if scale.correction is not None:
        corrections = resized(scale.correction[None].to(v.device), height, width)[0]
        inverse_depth = inverse_depth + corrections[v, u]
    far = (1 / measured[:: 1 + len(measured) // FAR_SAMPLE]).quantile(FARTHER)
    residual = (measured * torch.maximum(inverse_depth, far / BEYOND)).log().float()
    features = _features(frame, scale, far, height, width)
    weights = _candidates(support(v, u, features[0, v, u], residual, width))
    grids = levels(features, _surface(frame, features[0]))
    field, held_out, weight = _solve(grids, v, u, residual, weights)
    strength = _strength(residual, held_out, weight) if use else torch.zeros_like(residual[0])
    error = (residual - strength * held_out).expm1().abs()
    errors = (
        fit_errors(grids, v, u, residual.expm1().abs(), error, measured.log().float(), weight) if with_errors else None
    )
    median, far = torch.stack((error.median(), far.float())).tolist()
    device = frame.disparity.device
    return Field((strength * field).to(device), median, BEYOND / far, errors.to(device) if errors else None)


def _features(frame: RelativeGeometry, scale: Scale, far: Tensor, height: int, width: int) -> Tensor:
    """(C, h, w) on the device of ``far``: log inverse depth and color of each cell; an edge is a difference of 1."""
    every = _samples(frame, height, width)
    inverse_depth = scale.scale * frame.disparity[every] + scale.shift
    parts = [inverse_depth.clamp_min(far.to(inverse_depth.device)).log()[None] / EDGE_DEPTH]
    if frame.image is not None:
        parts.append(frame.image[every].permute(2, 0, 1).float() / (255 * EDGE_COLOR))
    return F.adaptive_avg_pool2d(torch.cat(parts)[None], (height, width))[0].to(far.device)


def _surface(frame: RelativeGeometry, feature: Tensor) -> Tensor | None:
    """(3, h, w): log depth of the line in each cell, and how much log depth rises across and down by the normals.

    On a plane 1 / z is proportional to n . r, so log depth rises by -(n . dr) / (n . r) from one ray to the next.
    ``feature``: that of inverse depth. None without normals or a camera.
    """
    if frame.normals is None or frame.camera is None:
        return None
    height, width = feature.shape
    every = _samples(frame, height, width)
    parts = frame.normals[every], frame.camera.rays.to(frame.normals.device)[every]
    pooled = F.adaptive_avg_pool2d(torch.cat(parts, -1).nan_to_num().permute(2, 0, 1)[None], (height, width))[0]
    normals, rays = pooled.to(feature.device).split(3)
    # The square root of sums, because on a CPU torch's norm takes many times as long over planes in memory.
    least = GRAZING * (normals.square().sum(0) * rays.square().sum(0)).sqrt()
    toward = torch.maximum(-(normals * rays).sum(0), least).clamp_min(1e-6)
    down, across = ((normals * change).sum(0) / toward for change in torch.gradient(rays, dim=(1, 2)))
    return torch.stack((-EDGE_DEPTH * feature, across, down))


def _samples(frame: RelativeGeometry, height: int, width: int) -> tuple[slice, slice]:
    """The pixels that are read for the cells of a grid."""
    step = max(1, min(frame.disparity.shape[0] // (SAMPLES * height), frame.disparity.shape[1] // (SAMPLES * width)))
    return slice(step // 2, None, step), slice(step // 2, None, step)


def _candidates(support: Tensor) -> Tensor:
    """Weights (C, N) from 0 to 1 of points by their support."""
    return ((support - support.new_tensor(SUPPORT)[:, None]) / RAMP).clamp(0, 1)


def _solve(
    grids: list[GridLevel], v: Tensor, u: Tensor, residual: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The field (h, w) of all points; at each point (N,) the field of the points outside its fold; the weights (N,).

    ``weights`` (C, N) are the candidates. The last level of the grid is solved for the best of them only.
    """
    # Neighbors in a row of a depth image belong to different folds.
    fold = torch.arange(len(residual), device=residual.device) % FOLDS
    kept = fold != torch.arange(FOLDS + 1, device=fold.device)[:, None]  # the last one keeps all
    pulls = (PULL * kept * weights[:, None]).flatten(0, 1)
    fields = torch.zeros(len(pulls), 1, 1, device=residual.device)
    for number, grid in enumerate(grids[:-1]):
        shrink = 2 ** (len(grids) - 1 - number)
        fields = fit_points(grid, v // shrink, u // shrink, residual, pulls, fields)
    fields = fields.unflatten(0, (len(weights), FOLDS + 1))
    held_out = fields[:, fold, v // shrink, u // shrink]
    error = (residual - held_out).abs()
    loss = (error / (error + BOUND)).mean(1)
    loss[1:] *= HANDICAP
    best = loss.argmin(0, keepdim=True)
    field = fit_points(grids[-1], v, u, residual, PULL * weights[best], fields[best, FOLDS])
    return field[0], held_out[best][0], weights[best][0]


def _strength(residual: Tensor, held_out: Tensor, weight: Tensor) -> Tensor:
    """From 0 to 1: how much of the field to use, by how well it predicts the held-out residuals."""
    slope = (weight * residual * held_out).sum() / (weight * held_out.square()).sum().clamp_min(1e-12)
    slope = slope.clamp(0, 1)
    gain = weight * (residual.abs() - (residual - slope * held_out).abs())
    certainty = gain.sum() / gain.square().sum().sqrt().clamp_min(1e-12)
    low, high = CERTAINTY
    return slope * ((certainty - low) / (high - low)).clamp(0, 1)
