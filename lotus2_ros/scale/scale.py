"""Scale and shift of one frame, and where they can come from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lotus2_ros.config import ScaleConfig
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.depth import disparity_to_depth
from lotus2_ros.scale.ground import scale_from_ground, up_from_angles
from lotus2_ros.scale.reference import Reference, fit_to_reference
from lotus2_ros.scale.shift import shift_from_normals
from lotus2_ros.scale.stats import AlignmentError, FitStats

# Of an image that nothing is known of: the farthest point is eleven times as far as the nearest.
DEFAULT_SHIFT = 0.1
# No sensor measures better than this, from one time to the next, relative.
LEAST_DEVIATION = 0.01


@dataclass(frozen=True)
class Scale:
    """1 / depth = scale * disparity + shift + correction; in metres if ``metric``, else up to one factor."""

    scale: float
    shift: float
    source: str  # reference_depth | reference_points | camera_height | normals | none
    metric: bool
    age: float = math.nan  # seconds between the fit's reference and the frame
    inlier_fraction: float = math.nan
    deviation: float = math.nan  # relative standard deviation of depth that the fit's points leave
    note: str = ""  # why something better was not used
    # (h, w), a small picture of what keeps still things from flickering; None: nothing does
    correction: Tensor | None = field(default=None, repr=False, compare=False)

    def depth_of(self, disparity: Tensor) -> Tensor:
        """Depth (H, W) along z of a disparity (H, W); NaN where it lies beyond infinity."""
        return disparity_to_depth(disparity, self.scale, self.shift, self.correction)

    def changed(self, factor: float, offset: float) -> Scale:
        """The scale after all inverse depths became factor * inverse depth + offset."""
        return replace(self, scale=factor * self.scale, shift=factor * self.shift + offset)


@dataclass(frozen=True)
class ScaleInput:
    """What the model says of an image (H, W, 3) uint8: disparity (H, W), normals (H, W, 3) or None, of one camera."""

    image: Tensor
    disparity: Tensor
    normals: Tensor | None = None
    camera: Camera | None = None
    stamp: float = 0.0  # seconds


def scale_of_reference(disparity: Tensor, reference: Reference) -> Scale:
    """The metric scale of ``disparity`` (H, W). Raises AlignmentError if the reference does not determine it."""
    scale, shift, stats = fit_to_reference(disparity, reference)
    return _metric(scale, shift, reference.source, stats)


def scale_of_height(frame: ScaleInput, config: ScaleConfig) -> Scale:
    """The metric scale by the camera's height above the floor. Raises AlignmentError if no floor is to be seen."""
    if frame.normals is None or frame.camera is None:
        raise AlignmentError("expected normals and camera_info for the camera's height, got none")
    K, rays = (values.to(frame.disparity.device) for values in (frame.camera.K, frame.camera.rays))
    up = up_from_angles(config.camera_pitch, config.camera_roll).to(frame.disparity.device)
    scale, shift, stats = scale_from_ground(frame.disparity, frame.normals, K, up, config.camera_height, rays)
    stats.check()
    return _metric(float(scale), float(shift), "camera_height", stats)


def relative_shift(frame: ScaleInput, config: ScaleConfig) -> float:
    """shift / scale without metres: as configured, or from the normals. Raises AlignmentError if they do not say it."""
    if config.relative_shift > 0:
        return config.relative_shift
    if frame.normals is None or frame.camera is None:
        raise AlignmentError("expected normals and camera_info for the shift, got none")
    K, rays = (values.to(frame.disparity.device) for values in (frame.camera.K, frame.camera.rays))
    shift, stats = shift_from_normals(frame.disparity, frame.normals, K, torch.isfinite(frame.disparity), rays)
    stats.check()
    return float(shift)


def _metric(scale: float, shift: float, source: str, stats: FitStats) -> Scale:
    share, residual, points = (float(value) for value in (stats.inlier_fraction, stats.residual, stats.points))
    # Of two unknowns from so many points; what all points have in common is not seen in their residuals.
    deviation = max(LEAST_DEVIATION, residual * math.sqrt(2 / (share * points)))
    return Scale(scale, shift, source, metric=True, inlier_fraction=share, deviation=deviation)


def relative_scale(shift: float = DEFAULT_SHIFT, source: str = "none", note: str = "") -> Scale:
    """The scale that puts the nearest point at 1, with ``shift`` of shift / scale."""
    return Scale(1 / (1 + shift), shift / (1 + shift), source, metric=False, note=note)
