"""From affine-invariant disparity to metres: a robust line through measured points, in inverse depth."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lotus2_ros.scale.stats import FitStats

MINIMUM_POINTS = 20
# In standard errors: a smaller scale may as well be noise, for example before a wall that faces the camera.
MINIMUM_SCALE = 2.0
REASONS = (
    "",
    f"expected at least {MINIMUM_POINTS} points",
    f"expected at least {MINIMUM_POINTS} points that agree",
    "expected disparity that varies where points agree, by more than its errors",
    "expected near points to have more disparity than far ones",
)
SAMPLE = 256
HYPOTHESES = 128
STEPS = 5
# In standard deviations: so far from the line a point counts fully, then less and less, and from twice as far on not.
FULL = 1.5
# What the median of absolute errors, and the standard deviation under those weights, have to be multiplied with to be
# the standard deviation of a normal distribution.
MEDIAN_TO_SIGMA = 1.4826
TAPERED_TO_SIGMA = 1.0999
# The first step looks farther: what it leaves out of a network's long tails is hard to get back.
START = 1.5
# Share of the median value: what float32 leaves of an error or a spread of zero.
ROUNDING = 1e-6


def fit_scale_shift(disparity: Tensor, inverse_depth: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, FitStats]:
    """Robust weighted least squares of inverse_depth ~ scale * disparity + shift.

    All three tensors have one shape (..., N), of any device; leading dimensions are fits of their own. A point of
    weight 2 counts as two of weight 1; a weight of 0 leaves a point out, whatever its values. Least median of squares
    over lines through two points (Rousseeuw 1984), then reweighted least squares with the standard deviation of the
    points that agree: a small one among gross outliers, a large one where a network's errors have long tails.
    Deterministic; nothing waits for the device.

    Returns scale and shift (...) float64 in the unit of inverse_depth, NaN where refused, and :class:`FitStats`, whose
    residual is the standard deviation of the points that agree over their mean inverse depth. Refused are fewer than
    20 points, fewer than 20 that agree, disparity that does not vary, and near and far exchanged (scale < 0).
    Raises ValueError on shapes that differ.
    """
    if not disparity.shape == inverse_depth.shape == weight.shape:
        raise ValueError(
            f"expected one shape, got {tuple(disparity.shape)}, {tuple(inverse_depth.shape)} and {tuple(weight.shape)}"
        )
    given = torch.stack((disparity, inverse_depth, weight), dim=-2).double()
    # Points without weight, where there are hardly any, so that there is always a line to refuse.
    given = F.pad(given, (0, max(0, MINIMUM_POINTS - given.shape[-1])))
    use = torch.isfinite(given).all(-2) & (given[..., 2, :] > 0)
    x, y, w = torch.where(use[..., None, :], given, 0).unbind(-2)
    points = torch.stack((torch.ones_like(x), x, y), dim=-2)
    sample = _sample(points, w)
    least = (ROUNDING * sample.abs().median(dim=-1).values).square().clamp_min(torch.finfo(torch.double).tiny)
    # A line is (-shift, -scale, 1): its product with a point (1, x, y) is the point's error.
    line, variance = _least_median(sample)
    weighted = points * w[..., None, :]
    for _ in range(STEPS):
        full = torch.maximum((FULL * TAPERED_TO_SIGMA) ** 2 * variance, least[..., 2])
        unit = line * full.rsqrt()[..., None]
        robust = (2 - (unit[..., None, :] @ points).abs()).clamp(0, 1)
        moments = weighted * robust @ points.mT
        count, _, total = moments[..., 0, :].unbind(-1)
        # Least squares: errors without a mean and without correlation to x, so orthogonal to these two rows.
        normal = torch.linalg.cross(moments[..., 0, :], moments[..., 1, :])
        line = normal / normal[..., 2:]
        variance = (line * moments[..., 2, :]).sum(-1) / count
    variance = TAPERED_TO_SIGMA**2 * variance.clamp_min(0)
    shift, scale, _ = (-line).unbind(-1)
    influence = w * robust[..., 0, :]
    used, agree = use.sum(-1), (influence > 0).sum(-1)
    spread = normal[..., 2] / count.square()
    certainty = scale.square() * spread * count.square() / influence.square().sum(-1)
    refusal = torch.where(scale > 0, 0, 4).where(certainty > MINIMUM_SCALE**2 * variance, 3)
    refusal = refusal.where(agree >= MINIMUM_POINTS, 2).where(spread > least[..., 1], 3)
    refusal = refusal.where(used >= MINIMUM_POINTS, 1)
    scale, shift = (value.where(refusal == 0, torch.nan) for value in (scale, shift))
    residual = variance.sqrt() * count / total
    return scale, shift, FitStats(used, agree / used, residual, refusal, REASONS)


def _sample(points: Tensor, weight: Tensor) -> Tensor:
    """At most 256 of the points (1, x, y) (..., 3, N), each as often as its weight says, in the order of x."""
    size = min(SAMPLE, weight.shape[-1])
    total = weight.cumsum(-1)
    places = (torch.arange(size, device=weight.device) + 0.5) / size * total[..., -1:]
    chosen = torch.searchsorted(total, places).clamp_max(weight.shape[-1] - 1)
    order = points[..., 1, :].gather(-1, chosen).argsort(dim=-1)
    return points.gather(-1, chosen.gather(-1, order)[..., None, :].expand(*points.shape[:-1], size))


def _least_median(points: Tensor) -> tuple[Tensor, Tensor]:
    """The line (..., 3) with the least median of absolute errors, and (...) the variance to start from.

    Of lines through a point of the lower and one of the upper half of the points (1, x, y) (..., 3, M), sorted by x.
    """
    half = points.shape[-1] // 2
    number = torch.arange(HYPOTHESES, device=points.device)
    low, high = number % half, half + (number + number // half) % half
    lines = torch.linalg.cross(points[..., low], points[..., high], dim=-2)
    lines = (lines / lines[..., 2:, :]).mT
    # Two points of one x have no line: NaN.
    median = (lines @ points).abs().median(dim=-1).values.nan_to_num(torch.inf)
    least, best = median.min(dim=-1)
    line = lines.gather(-2, best[..., None, None].expand(*best.shape, 1, 3))[..., 0, :]
    return line, (START * MEDIAN_TO_SIGMA / TAPERED_TO_SIGMA * least).square()
