"""Errors of depth: the metrics of the public evaluation of Lotus-2, which are Marigold's (arXiv 2312.02145)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lotus2_ros.geometry.depth import Space

MINIMUM_PIXELS = 20
MINIMUM_DISPARITY = 1e-3
INDOORS_AND_STREETS = (1e-3, 80.0)  # meters


@dataclass(frozen=True)
class DepthError:
    """Of one image, over the pixels with a known true depth z*; z is the predicted depth.

    abs_rel: mean |z - z*| / z*; sq_rel: mean (z - z*)² / z*, meters; rmse: root of mean (z - z*)², meters; rmse_log:
    root of mean (ln z - ln z*)²; log10: mean |log10 z - log10 z*|; delta1, 2, 3: share of max(z / z*, z* / z) below
    1.25, 1.25², 1.25³; inverse_rmse: root of mean (1 / z - 1 / z*)², 1 / meters; si_log: 100 times the standard
    deviation of ln z - ln z* (Eigen et al., arXiv 1406.2283).
    """

    abs_rel: float
    sq_rel: float
    rmse: float
    rmse_log: float
    log10: float
    delta1: float
    delta2: float
    delta3: float
    inverse_rmse: float
    si_log: float


def depth_error(depth: Tensor, truth: Tensor) -> DepthError:
    """Error of `depth` against `truth`, both of one shape, in one unit and valid everywhere."""
    depth, truth = depth.double(), truth.double()
    difference, log_difference = depth - truth, depth.log() - truth.log()
    ratio = torch.maximum(depth / truth, truth / depth)
    return DepthError(
        abs_rel=float((difference.abs() / truth).mean()),
        sq_rel=float((difference.square() / truth).mean()),
        rmse=_root_mean_square(difference),
        rmse_log=_root_mean_square(log_difference),
        log10=float((depth.log10() - truth.log10()).abs().mean()),
        delta1=float((ratio < 1.25).double().mean()),
        delta2=float((ratio < 1.25**2).double().mean()),
        delta3=float((ratio < 1.25**3).double().mean()),
        inverse_rmse=_root_mean_square(1 / depth - 1 / truth),
        si_log=100 * float(log_difference.std(correction=0)),
    )


def fit_depth(
    disparity: Tensor,
    truth: Tensor,
    depth_range: tuple[float, float] = INDOORS_AND_STREETS,
    fit_side: int | None = None,
    space: Space = "disparity",
) -> Tensor:
    """Depth (..., float64), meters, of an affine-invariant `disparity` with the scale and shift that fit `truth` best.

    The protocol of Lotus: least squares in disparity over the pixels where the truth is within `depth_range` (so not
    NaN, 0 or sky) and the disparity is positive; then the fitted disparity is clipped at 1e-3, inverted, and the depth
    clipped to the range. In `space` depth, the same for affine-invariant depth, without the inversions. With `fit_side`
    the fit uses both images (H, W) downsampled to that longer side, nearest neighbor.
    Raises ValueError on different shapes, and if there are fewer than 20 such pixels.
    """
    if disparity.shape != truth.shape:
        raise ValueError(
            f"expected disparity and depth of one shape, got {tuple(disparity.shape)} and {tuple(truth.shape)}"
        )
    seen, known = disparity, truth
    if fit_side is not None and max(truth.shape) > fit_side:
        factor = fit_side / max(truth.shape)
        seen, known = (F.interpolate(t[None, None], scale_factor=factor)[0, 0] for t in (disparity, truth))
    low, high = depth_range
    valid = in_range(known, depth_range) & torch.isfinite(seen) & (seen > 0)
    if int(valid.sum()) < MINIMUM_PIXELS:
        raise ValueError(f"expected at least {MINIMUM_PIXELS} pixels with depth, got {int(valid.sum())}")
    x, y = seen[valid].double(), known[valid].double()
    y = 1 / y if space == "disparity" else y
    deviation = x - x.mean()
    # A constant disparity has no scale: the mean alone is fitted.
    scale = (deviation @ y) / (deviation @ deviation).clamp_min(1e-30)
    fitted = scale * (disparity.double() - x.mean()) + y.mean()
    depth = 1 / fitted.clamp_min(MINIMUM_DISPARITY) if space == "disparity" else fitted
    return depth.clamp(low, high)


def in_range(depth: Tensor, depth_range: tuple[float, float]) -> Tensor:
    """Bool mask of the pixels that count."""
    return torch.isfinite(depth) & (depth > depth_range[0]) & (depth < depth_range[1])


def affine_invariant_depth_error(
    disparity: Tensor,
    depth: Tensor,
    depth_range: tuple[float, float] = INDOORS_AND_STREETS,
    fit_side: int | None = None,
    space: Space = "disparity",
) -> DepthError:
    """Error of an affine-invariant `disparity` (H, W) against `depth` (H, W) in meters, after :func:`fit_depth`."""
    fitted = fit_depth(disparity, depth, depth_range, fit_side, space)
    valid = in_range(depth, depth_range) & torch.isfinite(disparity)
    return depth_error(fitted[valid], depth[valid])


def image_row(height: int, width: int) -> Tensor:
    """A baseline that ignores the image: the pixel's row as disparity, (H, W) in (0, 1), near at the bottom."""
    return ((torch.arange(height) + 0.5) / height)[:, None].expand(height, width)


def _root_mean_square(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
