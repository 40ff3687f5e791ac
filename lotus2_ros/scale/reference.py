"""Measured depth of a camera's view, and the fit of a disparity to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lotus2_ros.geometry.depth import Space, valid_depth
from lotus2_ros.scale.fit import fit_scale_shift
from lotus2_ros.scale.stats import FitStats

# More points make the fit slower, not better.
FIT_POINTS = 8192
# Multiples of it, without their whole part, spread evenly over [0, 1) and in step with no row of an image.
GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Reference:
    """Measured depth of the camera's view, maybe sparse: (H', W') float32, metres along z; 0, NaN, Inf: unknown."""

    depth: Tensor
    stamp: float = 0.0  # seconds
    source: str = "reference_depth"  # or reference_points: which input it came from


def fit_to_reference(
    disparity: Tensor, reference: Reference, space: Space = "disparity"
) -> tuple[float, float, FitStats]:
    """Metric scale and shift of ``disparity`` (H, W) from a reference of any size, and what the fit stands on.

    depth = 1 / (scale * disparity + shift), or of affine-invariant depth in its place: depth = scale * depth + shift.
    All measurements weigh the same: in inverse depth, weights that grow with depth make depth worse, on streets most.
    Raises AlignmentError where the reference does not determine a scale and a shift.
    """
    depth = reference.depth
    rows, columns = torch.nonzero(valid_depth(depth), as_tuple=True)
    if len(rows) > FIT_POINTS:
        places = torch.arange(FIT_POINTS, dtype=torch.float64, device=depth.device) * GOLDEN_RATIO % 1
        chosen = (places * len(rows)).long()
        rows, columns = rows[chosen], columns[chosen]
    measured = depth[rows, columns]
    # The pixel of the disparity image that each measurement falls into.
    at_v = ((rows + 0.5) * disparity.shape[0] / depth.shape[0]).long().to(disparity.device)
    at_u = ((columns + 0.5) * disparity.shape[1] / depth.shape[1]).long().to(disparity.device)
    predicted = disparity[at_v, at_u].to(depth.device)
    scale, shift, stats = fit_scale_shift(
        predicted, 1 / measured if space == "disparity" else measured, torch.ones_like(measured)
    )
    stats.check()
    return float(scale), float(shift), stats
