"""From affine-invariant depth, which some models predict, to the affine-invariant disparity that all else works with.

Such a model says v in [0, 1], 0 = near, and depth is a v + b with unknown a and b. With s = b / a

    d = s (1 - v) / (v + s),    1 / depth ~ d + s,

so d is in [0, 1] with 1 = near, and s is also the shift of this disparity over its scale. Only s has to be known to
invert; scale and shift are then found as for any disparity.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor

from lotus2_ros.config import ScaleConfig
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.scale.reference import Reference, fit_to_reference
from lotus2_ros.scale.scale import GUESSED_SHIFT
from lotus2_ros.scale.shift import shift_from_normals
from lotus2_ros.scale.stats import AlignmentError

# What s is taken to be at the least and at the most: the farthest point 200 times, or 1.03 times as far as the nearest.
SMALLEST, LARGEST = 0.005, 30.0
# A wrong s makes a disparity whose normals ask for a better one, and the right s for itself: so often for the first
# frame, and once for each that follows.
ITERATIONS = 8
# Frames that are averaged at the most: when s changes, the disparity of still things does too.
MEMORY = 20


def invert(depth: Tensor, shift: float) -> Tensor:
    """Disparity, 1 = near, of affine-invariant depth in [0, 1], 0 = near; `shift` is the s above."""
    return shift * (1 - depth) / (depth + shift)


def invert_deviation(deviation: Tensor, depth: Tensor, shift: float) -> Tensor:
    """The standard deviation of that disparity from that of the depth, to first order."""
    return deviation * shift * (1 + shift) / (depth + shift).square()


class DepthInverter:
    """Finds s for one camera's frames: by a reference, as configured, by the normals, or by what was before."""

    def __init__(self) -> None:
        self._shift = GUESSED_SHIFT
        self._measured = 0

    def shift_of(
        self,
        depth: Tensor,
        normals: Tensor | None,
        camera: Camera | None,
        reference: Reference | None,
        config: ScaleConfig,
        stamp: float = 0.0,
    ) -> float:
        """s of the next frame: depth (H, W) in [0, 1], normals (H, W, 3); a reference of another time is of no use."""
        try:
            if _is_of(reference, stamp, config):
                self._learn(_shift_of_reference(depth, reference))
            elif config.relative_shift > 0:
                self._shift = config.relative_shift
            elif normals is not None and camera is not None:
                self._learn(self._shift_of_normals(depth, normals, camera))
        except AlignmentError:
            pass  # what was before is the best there is; the scale_filter will say what is amiss
        return self._shift

    def _learn(self, shift: float) -> None:
        self._measured = min(self._measured + 1, MEMORY)
        self._shift += (min(max(shift, SMALLEST), LARGEST) - self._shift) / self._measured

    def _shift_of_normals(self, depth: Tensor, normals: Tensor, camera: Camera) -> float:
        K, rays = (values.to(depth.device) for values in (camera.K, camera.rays))
        shift = self._shift
        for _ in range(1 if self._measured else ITERATIONS):
            disparity = invert(depth, shift)
            found, stats = shift_from_normals(disparity, normals, K, torch.isfinite(disparity), rays)
            stats.check()
            shift = min(max(float(found), SMALLEST), LARGEST)
        return shift


def _is_of(reference: Reference | None, stamp: float, config: ScaleConfig) -> TypeGuard[Reference]:
    if reference is None or config.source == "none":
        return False
    return abs(reference.stamp - stamp) <= config.reference_slop


def _shift_of_reference(depth: Tensor, reference: Reference) -> float:
    """Least squares in depth, as such models are trained and evaluated."""
    scale, shift, _ = fit_to_reference(depth, reference, space="depth")
    return shift / scale
