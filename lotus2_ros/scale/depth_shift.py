"""The depth shift of models that predict affine-invariant depth, from frame to frame.

Such a model predicts v in [0, 1], 0 = near; the depth is a v + b. The depth shift s = b / a is all that is needed to
convert v to disparity, see :func:`lotus2_ros.geometry.depth.affine_depth_to_disparity`.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor

from lotus2_ros.config import ScaleConfig
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.depth import affine_depth_to_disparity
from lotus2_ros.scale.fit import AlignmentError
from lotus2_ros.scale.planes import pool_cells
from lotus2_ros.scale.reference import Reference, fit_to_reference
from lotus2_ros.scale.scale import DEFAULT_SHIFT
from lotus2_ros.scale.shift import shift_from_cells
from lotus2_ros.scale.sources import metric_sources

# Limits of s: the farthest point is 200 times, or 1.03 times, as far as the nearest.
MIN_SHIFT, MAX_SHIFT = 0.005, 30.0
# The shift from normals depends on the disparity, which depends on the shift: a fixed-point iteration, with this many
# steps for the first frame and one for every later frame.
FIRST_ITERATIONS = 8
# Largest number of measurements in the running mean: a change of s also changes the disparity of static objects.
MAX_MEASUREMENTS = 20


class DepthShiftEstimator:
    """Running mean of one camera's depth shift, measured from references, from the configuration or from normals."""

    def __init__(self) -> None:
        self._shift = DEFAULT_SHIFT
        self._measurements = 0

    def update(
        self,
        affine_depth: Tensor,
        normals: Tensor | None,
        camera: Camera | None,
        reference: Reference | None,
        config: ScaleConfig,
        stamp: float = 0.0,
    ) -> float:
        """The depth shift of the next frame: affine_depth (H, W) in [0, 1], normals (H, W, 3) in the optical frame.

        A reference is used only if its stamp is within ``config.reference_slop`` of ``stamp``.
        """
        try:
            if _belongs(reference, stamp, config):
                self._average(_shift_from_reference(affine_depth, reference))
            elif config.relative_shift > 0:
                self._shift = config.relative_shift
            elif normals is not None and camera is not None:
                self._average(self._shift_from_normals(affine_depth, normals, camera))
        except AlignmentError:
            pass  # keep the last shift; the ScaleFilter reports why there is no better one
        return self._shift

    def _average(self, shift: float) -> None:
        self._measurements = min(self._measurements + 1, MAX_MEASUREMENTS)
        self._shift += (min(max(shift, MIN_SHIFT), MAX_SHIFT) - self._shift) / self._measurements

    def _shift_from_normals(self, affine_depth: Tensor, normals: Tensor, camera: Camera) -> float:
        rays = camera.rays_on(affine_depth.device)
        shift = self._shift
        for _ in range(1 if self._measurements else FIRST_ITERATIONS):
            disparity = affine_depth_to_disparity(affine_depth, shift)
            found, stats = shift_from_cells(pool_cells(disparity, normals, rays, torch.isfinite(disparity)))
            stats.check()
            shift = min(max(float(found), MIN_SHIFT), MAX_SHIFT)
        return shift


def _belongs(reference: Reference | None, stamp: float, config: ScaleConfig) -> TypeGuard[Reference]:
    if reference is None or reference.source not in [source.name for source in metric_sources(config)]:
        return False
    return config.is_near(reference.stamp, stamp)


def _shift_from_reference(affine_depth: Tensor, reference: Reference) -> float:
    """Least squares in depth, as these models are trained and evaluated."""
    scale, shift, _ = fit_to_reference(affine_depth, reference, space="depth")
    return shift / scale
