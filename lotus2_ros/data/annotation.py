"""Depth and normals as the annotations that a model is trained to generate: three channels in [-1, 1], and their
validity."""

from __future__ import annotations

import torch
from torch import Tensor

from lotus2_ros.geometry.normals import MODEL_TO_OPTICAL

QUANTILES = (0.02, 0.98)
# Enough to find quantiles of, and no more than torch.quantile takes.
MAXIMUM_SAMPLES = 1 << 20
MINIMUM_SPAN = 1e-6  # of a disparity that is everywhere the same


def disparity_annotation(depth: Tensor, *, sky_in_range: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """depth (H, W) in meters, +Inf in the sky, NaN where unknown -> annotation (3, H, W), valid (H, W) bool, shift.

    The 2 % and 98 % quantiles of 1/depth become -1 and 1; values beyond are clamped. The three channels are equal. The
    sky has disparity 0 and is valid (training protocol of arXiv 2409.18124 and 2512.01030). `sky_in_range`: whether the
    sky counts in the quantiles; in that protocol it does not. `shift` is a scalar that the annotation loses: except for
    clamped pixels, 1/depth is proportional to (annotation + 1) / 2 + shift. Raises ValueError without any depth.
    """
    valid = ~depth.isnan() & (depth > 0)
    ranged = valid if sky_in_range else valid & depth.isfinite()
    if not ranged.any():
        raise ValueError("expected a depth with valid pixels, got none")
    disparity = torch.where(valid, 1 / depth, 0.0)
    known = disparity[ranged]
    known = known[:: 1 + len(known) // MAXIMUM_SAMPLES]
    low, high = torch.quantile(known, torch.tensor(QUANTILES, device=depth.device))
    span = (high - low).clamp_min(MINIMUM_SPAN)
    scaled = (disparity - low) / span * 2 - 1
    return scaled.clamp(-1, 1).expand(3, *depth.shape), valid, low / span


def renormalize(annotation: Tensor, valid: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Normalize disparity annotations (B, 3, H, W) that are crops of larger ones to their own range, and return their
    own shift; valid (B, 1, H, W), shift (B,).

    The same as :func:`disparity_annotation` of the crop, except for values that were clamped in the larger image.
    """
    known = torch.where(valid, annotation[:, :1], torch.nan).flatten(1)
    low, high = torch.nanquantile(known, torch.tensor(QUANTILES, device=known.device), dim=1)[..., None, None, None]
    span = (high - low).clamp_min(MINIMUM_SPAN)
    farthest = (low[:, 0, 0, 0] + 1) / 2 + shift
    return ((annotation - low) / span * 2 - 1).clamp(-1, 1), farthest / (span[:, 0, 0, 0] / 2)


def normals_annotation(normals: Tensor, sky: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """normals (H, W, 3) in the optical frame, NaN where unknown -> annotation (3, H, W) in the model's axes, valid.

    The model's axes are x left, y up, z toward the camera. `sky` (H, W) bool: pixels whose normal is set to face the
    camera. Without it the sky, which has no normal, is not valid.
    """
    valid = normals.isfinite().all(-1)
    toward = torch.tensor([0.0, 0.0, -1.0], device=normals.device)
    annotation = (MODEL_TO_OPTICAL * torch.where(valid[..., None], normals, toward)).permute(2, 0, 1)
    return annotation, valid if sky is None else valid | sky


def mirror(annotation: Tensor, task: str) -> Tensor:
    """(..., 3, H, W) flipped left to right; a normal's x changes its sign."""
    flipped = annotation.flip(-1)
    if task != "normals":
        return flipped
    return flipped * torch.tensor([-1.0, 1.0, 1.0], device=annotation.device)[:, None, None]
