"""Conversions between disparity, affine-invariant depth and depth."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# The quantity that is known up to scale and shift: inverse depth ("disparity") or depth itself.
Space = Literal["disparity", "depth"]
# A model's depth output, by the space it predicts in.
PREDICTED: dict[Space, str] = {"disparity": "disparity", "depth": "affine_depth"}


def disparity_to_depth(
    disparity: Tensor, scale: float | Tensor, shift: float | Tensor, correction: Tensor | None = None
) -> Tensor:
    """depth = 1 / (scale * disparity + shift + correction), along z.

    Args:
        disparity: affine-invariant, any shape, 1 = near; (H, W) if there is a ``correction``.
        scale, shift: in units of inverse depth, for example 1/m.
        correction: (h, w) in the same unit, resized bilinearly to (H, W).

    Returns:
        Depth of the shape of ``disparity``. NaN where the inverse depth is not positive: such a point would lie at or
        beyond infinity, so it is not a valid measurement (REP-117).
    """
    inverse_depth = (disparity * scale).add_(shift)
    if correction is not None:
        inverse_depth += F.interpolate(correction[None, None], disparity.shape, mode="bilinear", align_corners=False)[
            0, 0
        ]
    return inverse_depth.masked_fill_(inverse_depth <= 0, torch.nan).reciprocal_()


def valid_depth(depth: Tensor) -> Tensor:
    """Bool mask of valid measurements: finite and positive. In a reference 0, NaN and Inf all mean "no measurement"."""
    return depth.nan_to_num(0.0, 0.0, 0.0) > 0  # a sixth of the time of isfinite on a CPU


def affine_depth_to_disparity(affine_depth: Tensor, depth_shift: float) -> Tensor:
    """Affine-invariant disparity in [0, 1], 1 = near, from affine-invariant depth v in [0, 1], 0 = near.

    The depth is a v + b with unknown a and b. With ``depth_shift`` s = b / a > 0,

        d = s (1 - v) / (v + s),    1 / depth is proportional to d + s,

    so s is also the ratio shift / scale of this disparity. Only s must be known for the conversion; scale and shift are
    then found as for any disparity.
    """
    return depth_shift * (1 - affine_depth) / (affine_depth + depth_shift)


def affine_depth_to_disparity_std(std: Tensor, affine_depth: Tensor, depth_shift: float) -> Tensor:
    """Standard deviation of :func:`affine_depth_to_disparity` from the one of its depth, to first order."""
    return std * depth_shift * (1 + depth_shift) / (affine_depth + depth_shift).square()
