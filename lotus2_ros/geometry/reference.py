"""Measured depth of a camera's view, and the fit of a disparity to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lotus2_ros.geometry.alignment import FitStats, fit_scale_shift
from lotus2_ros.geometry.depth import valid_depth

# More points make the fit slower, not better.
FIT_POINTS = 8192


@dataclass(frozen=True)
class Reference:
    """Measured depth of the camera's view, maybe sparse: (H', W') float32, metres along z; 0, NaN, Inf: unknown."""

    depth: Tensor
    stamp: float = 0.0  # seconds
    source: str = "reference_depth"  # or reference_points: which input it came from


def fit_to_reference(disparity: Tensor, reference: Reference) -> tuple[float, float, FitStats]:
    """Metric scale and shift of ``disparity`` (H, W) from a reference of any size. Raises AlignmentError."""
    depth = reference.depth
    valid = valid_depth(depth)
    rows, columns = torch.nonzero(valid, as_tuple=True)
    keep = slice(None, None, max(1, math.ceil(len(rows) / FIT_POINTS)))
    rows, columns = rows[keep], columns[keep]
    measured = depth[rows, columns]
    # The pixel of the disparity image that each measurement falls into.
    at_v = ((rows + 0.5) * disparity.shape[0] / depth.shape[0]).long().to(disparity.device)
    at_u = ((columns + 0.5) * disparity.shape[1] / depth.shape[1]).long().to(disparity.device)
    predicted = disparity[at_v, at_u].to(depth.device)
    return fit_scale_shift(predicted, 1 / measured, torch.ones_like(measured))
