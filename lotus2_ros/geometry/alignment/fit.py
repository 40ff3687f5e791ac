"""From affine-invariant disparity to metres: robust fits in inverse depth."""

from __future__ import annotations

import torch
from torch import Tensor

from lotus2_ros.geometry.alignment.stats import AlignmentError, FitStats

MINIMUM_INLIERS = 20
# The normalised median absolute deviation of a normal distribution is its standard deviation.
MAD_TO_SIGMA = 1.4826


def fit_scale_shift(disparity: Tensor, inverse_depth: Tensor, weight: Tensor) -> tuple[float, float, FitStats]:
    """Robust weighted least squares of inverse_depth ~ scale * disparity + shift.

    All three tensors have the same shape; a weight of 0 leaves a point out, whatever its values. Iteratively reweighted
    least squares with Tukey's biweight, started from least absolute residuals, so that gross outliers lose all weight.
    Returns scale and shift in 1/metre (if inverse_depth is) and :class:`FitStats`.

    Raises AlignmentError when fewer than 20 points are left, the disparity of the inliers does not vary, or near and
    far would be exchanged (scale <= 0).
    """
    if not disparity.shape == inverse_depth.shape == weight.shape:
        raise ValueError(
            f"expected one shape, got {tuple(disparity.shape)}, {tuple(inverse_depth.shape)} and {tuple(weight.shape)}"
        )
    use = (weight > 0) & torch.isfinite(disparity) & torch.isfinite(inverse_depth)
    x, y, w = (t[use].double() for t in (disparity, inverse_depth, weight))
    if len(x) < MINIMUM_INLIERS:
        raise AlignmentError(f"expected at least {MINIMUM_INLIERS} points, got {len(x)}")
    robust = torch.ones_like(x)
    scale, shift = _weighted_line(x, y, w)
    for iteration in range(30):
        residual = (y - scale * x - shift).abs()
        sigma = (MAD_TO_SIGMA * residual.median()).clamp_min(1e-6 * y.abs().max())
        if iteration < 10:
            # Least absolute residuals: convex, so the start does not matter.
            robust = 1 / (residual / sigma).clamp_min(1e-3)
        else:
            robust = (1 - (residual / (4.685 * sigma)).square()).clamp_min(0).square()
        previous = scale, shift
        scale, shift = _weighted_line(x, y, w * robust)
        change = abs(scale - previous[0]) + abs(shift - previous[1])
        if iteration >= 10 and change <= 1e-9 * (abs(scale) + abs(shift)):
            break
    inlier = robust > 0
    count = int(inlier.sum())
    if count < MINIMUM_INLIERS:
        raise AlignmentError(f"expected at least {MINIMUM_INLIERS} points that agree, got {count} of {len(x)}")
    if scale <= 0:
        raise AlignmentError(f"expected near points to have more disparity, but the fitted scale is {scale:.3g}")
    relative = (y - scale * x - shift)[inlier].abs() / y[inlier].abs().clamp_min(1e-12)
    stats = FitStats(torch.tensor(len(x)), torch.tensor(count / len(x)), relative.median(), torch.tensor(0), ("",))
    return scale, shift, stats


def _weighted_line(x: Tensor, y: Tensor, w: Tensor) -> tuple[float, float]:
    """Weighted least squares of y ~ scale * x + shift, in closed form about the weighted means."""
    total = w.sum()
    mean_x, mean_y = (w * x).sum() / total, (w * y).sum() / total
    variance = (w * (x - mean_x).square()).sum() / total
    if not variance > 1e-8 * x.abs().max().square():
        raise AlignmentError(
            f"expected disparity that varies, got a standard deviation of {float(variance) ** 0.5:.3g}"
        )
    scale = (w * (x - mean_x) * (y - mean_y)).sum() / total / variance
    return float(scale), float(mean_y - scale * mean_x)
