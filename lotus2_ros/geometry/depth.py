"""Disparity and depth."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# What is known up to scale and shift: inverse depth, or depth.
Space = Literal["disparity", "depth"]


def disparity_to_depth(
    disparity: Tensor, scale: float | Tensor, shift: float | Tensor, temporal_residual: Tensor | None = None
) -> Tensor:
    """depth = 1 / (scale * disparity + shift + temporal_residual), along z, in the unit of the fit.

    ``disparity`` is affine-invariant, any shape, 1 = near; with a ``temporal_residual`` (h, w), which is brought to its
    size, (H, W). Where the inverse depth is not positive the point lies at or beyond infinity, which no surface does:
    NaN (REP-117: not a valid measurement).
    """
    inverse_depth = (disparity * scale).add_(shift)
    if temporal_residual is not None:
        small = temporal_residual[None, None]
        inverse_depth += F.interpolate(small, disparity.shape, mode="bilinear", align_corners=False)[0, 0]
    return inverse_depth.masked_fill_(inverse_depth <= 0, torch.nan).reciprocal_()


def valid_depth(depth: Tensor) -> Tensor:
    """Bool mask of measurements: finite and positive (0, NaN and Inf all mean "nothing here" in a reference)."""
    return torch.isfinite(depth) & (depth > 0)
