"""The uncertainty of depth: one standard deviation for each pixel, relative to its depth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lotus2_ros.model.engine.device import upload
from lotus2_ros.scale.grid import resized
from lotus2_ros.scale.spread_calibration import RangeFactor
from lotus2_ros.scale.tracker import THUMBNAIL_SIDE, thumbnail_size

# What is known without measurements to compare with, as shares of depth: of the scale by its source, of the scene's
# shape, and of the disparity by the model, whose share of depth grows with depth. They are stated wide.
OF_SOURCE = {"reference_depth": 0.1, "reference_points": 0.1, "odometry": 0.05, "camera_height": 0.15}
OF_OTHERS = 0.25
OF_SHAPE = 0.15
OF_DISPARITY = 0.05
# Where no point of the reference is near, the line extrapolates.
UNREACHED = 0.15
# A pixel with at least this reach takes its error from the points around it alone.
REACHED = 0.2
LARGEST = 10.0  # of a share


@dataclass(frozen=True)
class ErrorGrid:
    """The errors at held-out points of a reference, as a field over the image."""

    log_sigma: Tensor  # (h, w) logarithm of the relative standard deviation, before its calibration
    reach: Tensor  # (h, w) from 0, no point is near, to 1
    factor: RangeFactor

    def to(self, device: torch.device) -> ErrorGrid:
        return ErrorGrid(upload(self.log_sigma, device), upload(self.reach, device), self.factor.to(device))


@dataclass(frozen=True)
class Spread:
    """The relative standard deviation of one frame's depth."""

    source: str
    scale: float  # of the frame's Scale
    drift: float = 0.0  # relative variance that has come to the scale since it was last measured
    errors: ErrorGrid | None = None

    def to(self, device: torch.device) -> Spread:
        return replace(self, errors=self.errors and self.errors.to(device))

    def sigma(self, depth: Tensor, disparity_std: Tensor | None = None) -> Tensor:
        """One standard deviation (H, W) in the unit of ``depth`` (H, W). Where depth is NaN or Inf, it is the same.

        ``disparity_std``: (H, W) what the model says of its disparity; it counts where no reference measures the error.
        """
        size = thumbnail_size(depth.shape[0], depth.shape[1], THUMBNAIL_SIDE)
        if self.errors is not None:
            size = self.errors.reach.shape[0], self.errors.reach.shape[1]
        small = F.interpolate(depth[None, None], size)[0, 0]
        small = small.nan_to_num(nan=torch.inf).clamp_max(float(torch.finfo(small.dtype).max))
        variance = self._prior(small, disparity_std)
        if self.errors is not None:
            reach = (self.errors.reach / REACHED).clamp_max(1)
            measured = (self.errors.log_sigma + self.errors.factor.log_at(small.log())).exp().square()
            variance = reach * measured + (1 - reach) * (variance + UNREACHED**2)
        share = (variance + self.drift).sqrt().clamp_max(LARGEST)
        return resized(share[None], depth.shape[0], depth.shape[1])[0].mul_(depth)

    def _prior(self, depth: Tensor, disparity_std: Tensor | None) -> Tensor:
        """Relative variance (h, w) by what is known without measured errors."""
        of_disparity = torch.full_like(depth, OF_DISPARITY**2)
        if disparity_std is not None:
            of_disparity += F.adaptive_avg_pool2d(disparity_std[None].square(), (depth.shape[0], depth.shape[1]))[0]
        of_source = OF_SOURCE.get(self.source, OF_OTHERS)
        return of_source**2 + OF_SHAPE**2 + of_disparity * (self.scale * depth).square()
