"""How good a disparity or normals are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MINIMUM_PIXELS = 20
MINIMUM_DISPARITY = 1e-3


@dataclass(frozen=True)
class DepthError:
    """Of one image: mean of |z - z*| / z*, and the share of pixels with max(z/z*, z*/z) < 1.25."""

    abs_rel: float
    delta1: float


def depth_error(depth: Tensor, truth: Tensor) -> DepthError:
    """Error of `depth` against `truth`, both of one shape, in one unit and valid everywhere."""
    ratio = torch.maximum(depth / truth, truth / depth)
    return DepthError(float(((depth - truth).abs() / truth).mean()), float((ratio < 1.25).double().mean()))


def affine_invariant_depth_error(
    disparity: Tensor, depth: Tensor, depth_range: tuple[float, float] = (1e-3, 80.0)
) -> DepthError:
    """Error of an affine-invariant `disparity` (H, W) against `depth` (H, W) in metres, after the best scale and shift.

    Protocol of Lotus: least squares in disparity over the valid pixels (depth finite and within `depth_range`, which
    leaves out NaN, 0 and the sky), clip of the fitted disparity at 1e-3, inversion, clip to the range.
    """
    if disparity.shape != depth.shape:
        raise ValueError(
            f"expected disparity and depth of one shape, got {tuple(disparity.shape)} and {tuple(depth.shape)}"
        )
    low, high = depth_range
    valid = torch.isfinite(depth) & torch.isfinite(disparity) & (depth > low) & (depth < high)
    if int(valid.sum()) < MINIMUM_PIXELS:
        raise ValueError(f"expected at least {MINIMUM_PIXELS} pixels with depth, got {int(valid.sum())}")
    predicted, truth = disparity[valid].double(), depth[valid].double()
    design = torch.stack((predicted, torch.ones_like(predicted)), dim=-1)
    # By the pseudo-inverse, because a constant disparity has no unique scale.
    scale, shift = torch.linalg.pinv(design) @ (1 / truth)
    fitted = (1 / (scale * predicted + shift).clamp_min(MINIMUM_DISPARITY)).clamp(low, high)
    return depth_error(fitted, truth)


def angular_errors(normals: Tensor, truth: Tensor) -> Tensor:
    """Angles in degrees, (N,), between unit normals (H, W, 3) where both are valid (no NaN)."""
    if normals.shape != truth.shape:
        raise ValueError(f"expected normals of one shape, got {tuple(normals.shape)} and {tuple(truth.shape)}")
    valid = torch.isfinite(normals).all(-1) & torch.isfinite(truth).all(-1)
    cosine = (normals[valid].double() * truth[valid].double()).sum(-1)
    return torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))


def image_row(height: int, width: int) -> Tensor:
    """The baseline that looks at nothing: the image row as disparity, (H, W) in [0, 1], near at the bottom."""
    return torch.linspace(0, 1, height)[:, None].expand(height, width)
