"""Robust fit of scale and shift: a line through measured points, inverse depth over disparity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MINIMUM_POINTS = 20
# Smallest scale in units of its standard error. A smaller one may be noise, for example in front of a wall that faces
# the camera.
MINIMUM_SCALE = 2.0
REASONS = (
    "",
    f"expected at least {MINIMUM_POINTS} points",
    f"expected at least {MINIMUM_POINTS} points that agree",
    "expected disparity that varies where points agree, by more than its errors",
    "expected near points to have more disparity than far ones",
    "expected measurements that vary where points agree, not one value repeated",
)
SAMPLE = 256  # points of the least-median search
HYPOTHESES = 128  # lines it tries
STEPS = 5  # of reweighted least squares
# If this fraction of the measurements share one value, they may be invalid: many sensors mark invalid pixels so.
REPEATED = 0.1
# Residuals up to this many standard deviations have full weight; it falls to zero at twice as many.
FULL = 1.5
# Factors to the standard deviation of a normal distribution, from the median absolute error and from the standard
# deviation under those weights.
MEDIAN_TO_SIGMA = 1.4826
TAPERED_TO_SIGMA = 1.0999
# The first step takes a larger standard deviation: points it leaves out of a network's long tails rarely come back.
START = 1.5
# Relative to the median value: float32 rounding of a residual or a spread of zero.
ROUNDING = 1e-6


class AlignmentError(ValueError):
    """The data do not determine scale and shift."""


@dataclass(frozen=True)
class FitStats:
    """Quality of a fit. Tensors of the batch's shape; scale and shift of a refused fit are NaN."""

    points: Tensor  # number of measurements used
    inlier_fraction: Tensor  # fraction of them that agree with the fit
    residual: Tensor  # typical error of the inliers, as the docstring of the fit defines it
    refusal: Tensor  # int64, index into `reasons`; 0: the fit is accepted
    reasons: tuple[str, ...]  # the first is empty

    def check(self) -> None:
        """Raise AlignmentError with the reason of the first refused fit."""
        refused = self.refusal.flatten().tolist()
        for item, reason in enumerate(refused):
            if reason:
                points, share = self.points.flatten()[item], self.inlier_fraction.flatten()[item]
                found = f"{int(points)} points" + (
                    f", {100 * float(share):.0f} % agree" if torch.isfinite(share) else ""
                )
                raise AlignmentError(f"{self.reasons[reason]}, got {found}")


def fit_scale_shift(disparity: Tensor, inverse_depth: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, FitStats]:
    """Robust weighted least squares of inverse_depth ~ scale * disparity + shift.

    Least median of squares over lines through two points (Rousseeuw 1984), then reweighted least squares with the
    standard deviation of the inliers: small among gross outliers, large where a network's errors have long tails.
    Deterministic, and without synchronization with the device.

    Args:
        disparity, inverse_depth, weight: (..., N) on one device; leading dimensions are separate fits. A point of
            weight 2 counts as two points of weight 1. Points of weight 0 and points that are not finite are left out.

    Returns:
        Scale and shift (...) float64 in the unit of ``inverse_depth``, NaN where refused, and :class:`FitStats`. Its
        residual is the standard deviation of the inliers divided by their mean inverse depth. A fit is refused if it
        has fewer than 20 points or inliers, if the disparity of the inliers does not vary by more than its errors, if
        their inverse depth is one value, or if near and far are exchanged (scale < 0).

    Raises ValueError if the shapes differ.
    """
    if not disparity.shape == inverse_depth.shape == weight.shape:
        raise ValueError(
            f"expected one shape, got {tuple(disparity.shape)}, {tuple(inverse_depth.shape)} and {tuple(weight.shape)}"
        )
    given = torch.stack((disparity, inverse_depth, weight), dim=-2).double()
    # Pad with points of weight 0, so that there is always a line, which may then be refused.
    given = F.pad(given, (0, max(0, MINIMUM_POINTS - given.shape[-1])))
    use = torch.isfinite(given).all(-2) & (given[..., 2, :] > 0)
    x, y, w = torch.where(use[..., None, :], given, 0).unbind(-2)
    points = torch.stack((torch.ones_like(x), x, y), dim=-2)
    sample = _sample(points, w)
    least = (ROUNDING * sample.abs().median(dim=-1).values).square().clamp_min(torch.finfo(torch.double).tiny)
    # A line is (-shift, -scale, 1): its dot product with a point (1, x, y) is the point's error.
    line, largest = _least_median(_draw(sample, _distinct(sample), sample.shape[-1]))
    variance = largest
    weighted = points * w[..., None, :]
    for _ in range(STEPS):
        full = torch.maximum((FULL * TAPERED_TO_SIGMA) ** 2 * variance, least[..., 2])
        unit = line * full.rsqrt()[..., None]
        robust = (2 - (unit[..., None, :] @ points).abs()).clamp(0, 1)
        moments = weighted * robust @ points.mT
        count, _, total = moments[..., 0, :].unbind(-1)
        # Least squares: the errors have no mean and no correlation with x, so the line is orthogonal to these two rows.
        normal = torch.linalg.cross(moments[..., 0, :], moments[..., 1, :])
        line = normal / normal[..., 2:]
        # It may not grow beyond where it started: each step would let more outliers in.
        variance = torch.minimum((line * moments[..., 2, :]).sum(-1) / count, largest)
    variance = TAPERED_TO_SIGMA**2 * variance.clamp_min(0)
    shift, scale, _ = (-line).unbind(-1)
    influence = w * robust[..., 0, :]
    used, agree = use.sum(-1), (influence > 0).sum(-1)
    spread = normal[..., 2] / count.square()
    certainty = scale.square() * spread * count.square() / influence.square().sum(-1)
    rise = moments[..., 2, 2] / count - (total / count).square()
    refusal = (
        torch.where(scale > 0, 0, 4).where(rise > least[..., 2], 5).where(certainty > MINIMUM_SCALE**2 * variance, 3)
    )
    refusal = refusal.where(agree >= MINIMUM_POINTS, 2).where(spread > least[..., 1], 3)
    refusal = refusal.where(used >= MINIMUM_POINTS, 1)
    scale, shift = (value.where(refusal == 0, torch.nan) for value in (scale, shift))
    return scale, shift, FitStats(used, agree / used, variance.sqrt() * count / total, refusal, REASONS)


def _sample(points: Tensor, weight: Tensor) -> Tensor:
    """At most 256 of the points (1, x, y) (..., 3, N), drawn in proportion to their weights, sorted by x."""
    sample = _draw(points, weight, min(SAMPLE, weight.shape[-1]))
    order = sample[..., 1, :].argsort(dim=-1)
    return sample.gather(-1, order[..., None, :].expand_as(sample))


def _draw(points: Tensor, weight: Tensor, size: int) -> Tensor:
    """``size`` of the points (..., 3, N), spread evenly in proportion to their weights, in the given order."""
    total = weight.cumsum(-1)
    places = (torch.arange(size, device=weight.device) + 0.5) / size * total[..., -1:]
    chosen = torch.searchsorted(total, places).clamp_max(weight.shape[-1] - 1)
    return points.gather(-1, chosen[..., None, :].expand(*points.shape[:-1], size))


def _distinct(sample: Tensor) -> Tensor:
    """Weight 1 for points (1, x, y) (..., 3, M) with a value y of their own, 0 if too many share it; (..., M).

    Points with one value may be a wall that faces the camera, or invalid pixels. They do not choose the line, but count
    if they agree with it.
    """
    y = sample[..., 2, :].contiguous()
    ordered = y.sort(dim=-1).values
    count = torch.searchsorted(ordered, y, right=True) - torch.searchsorted(ordered, y)
    shared = count > REPEATED * y.shape[-1]
    enough = (~shared).sum(-1, keepdim=True) >= MINIMUM_POINTS
    return torch.where(enough & shared, 0.0, 1.0).double()


def _least_median(points: Tensor) -> tuple[Tensor, Tensor]:
    """The line (..., 3) with the least median of absolute errors, and the initial variance (...).

    The candidates are lines through one point of the lower and one of the upper half of the points (1, x, y)
    (..., 3, M), which are sorted by x.
    """
    half = points.shape[-1] // 2
    number = torch.arange(HYPOTHESES, device=points.device)
    low, high = number % half, half + (number + number // half) % half
    lines = torch.linalg.cross(points[..., low], points[..., high], dim=-2)
    lines = (lines / lines[..., 2:, :]).mT
    # No line goes through two points with the same x: NaN.
    median = (lines @ points).abs().median(dim=-1).values.nan_to_num(torch.inf)
    least, best = median.min(dim=-1)
    line = lines.gather(-2, best[..., None, None].expand(*best.shape, 1, 3))[..., 0, :]
    return line, (START * MEDIAN_TO_SIGMA / TAPERED_TO_SIGMA * least).square()
