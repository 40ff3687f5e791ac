"""The input and the result of a scale measurement."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.depth import disparity_to_depth
from lotus2_ros.model.engine.device import to_host, upload
from lotus2_ros.scale.fit import FitStats
from lotus2_ros.scale.grid import samples
from lotus2_ros.scale.spread import Spread
from lotus2_ros.scale.upsampling import upsample_surfaces

# shift / scale of an unknown image: the farthest point is eleven times as far as the nearest.
DEFAULT_SHIFT = 0.1
# Smallest relative standard deviation of a metric measurement: no sensor repeats better than this.
MIN_DEVIATION = 0.01
# A pixel that the line puts beyond `farthest` is left there if the field's factor is larger.
UNTOUCHED = 0.95


@dataclass(frozen=True)
class RelativeGeometry:
    """The model's prediction for one frame: known up to scale and shift."""

    disparity: Tensor  # (H, W) affine-invariant, 1 = near
    image: Tensor | None = None  # (H, W, 3) uint8; None: the frame cannot be tracked
    normals: Tensor | None = None  # (H, W, 3) unit, optical frame, toward the camera
    camera: Camera | None = None
    stamp: float = 0.0  # seconds

    @cached_property
    def on_host(self) -> RelativeGeometry:
        """The same with all tensors on the host, copied once and with one synchronization."""
        given = {name: getattr(self, name) for name in ("disparity", "image", "normals")}
        given = {name: tensor for name, tensor in given.items() if tensor is not None}
        copies: dict[str, Any] = dict(zip(given, to_host(*given.values()), strict=True))
        return replace(self, **copies)


@dataclass(frozen=True)
class Scale:
    """depth = exp(local) / (scale * disparity + shift + correction).

    In meters if ``metric``, else up to one unknown factor.
    """

    scale: float
    shift: float
    source: str  # name of a ScaleSource, see lotus2_ros.scale.sources
    metric: bool
    age: float = math.nan  # seconds from the reference to the frame
    inlier_fraction: float = math.nan
    deviation: float = math.nan  # relative standard deviation of depth, from the residuals of the fit
    note: str = ""  # why no better source was used
    # (h, w), low resolution, in units of inverse depth: removes flicker from static surfaces. None: no correction.
    correction: Tensor | None = field(default=None, repr=False, compare=False)
    # (h, w), low resolution: logarithm of a factor on depth, from the points of a reference. None: no such points.
    # With it depth has the resolution of this grid, and edges from the image.
    local: Tensor | None = field(default=None, repr=False, compare=False)
    farthest: float = math.inf  # depth that the field takes for all that the line puts farther or beyond infinity
    # Whether depth with ``local`` keeps the details of the disparity that are smaller than a cell of this grid.
    is_detailed: bool = False
    spread: Spread | None = field(default=None, repr=False, compare=False)  # how far depth may be off; None: not asked
    reference_error: float = math.nan  # median relative error of depth at held-out points of the last reference

    def to(self, device: torch.device) -> Scale:
        """For disparities on a device; the copies are queued there."""
        if device.type == "cpu":
            return self
        correction, local = (None if grid is None else upload(grid, device) for grid in (self.correction, self.local))
        return replace(self, correction=correction, local=local, spread=self.spread and self.spread.to(device))

    def depth_of(self, disparity: Tensor, image: Tensor | None = None) -> Tensor:
        """Depth (H, W) along z from disparity (H, W); NaN where it would lie at or beyond infinity.

        With a local field it is the depth of the field's cells, with edges where the image (H, W, 3) uint8 has them;
        without an image, where cells meet.
        """
        depth = disparity_to_depth(disparity, self.scale, self.shift, self.correction)
        if self.local is None:
            return depth
        seen = samples(depth[..., None], *self.local.shape)[0]
        line = torch.where(seen < self.farthest, seen, self.farthest).log_()
        log_depth = upsample_surfaces(line + self.local, depth.shape, image)
        beyond = ~(depth < self.farthest)  # NaN too
        if self.is_detailed:
            log_depth += torch.where(beyond, self.farthest, depth).log_()
            log_depth -= upsample_surfaces(line, depth.shape, image)
        corrected = log_depth.exp_()
        return torch.where(beyond & (corrected >= UNTOUCHED * self.farthest), depth, corrected)

    def transformed(self, factor: float, offset: float) -> Scale:
        """The scale after each inverse depth is replaced by factor * inverse depth + offset."""
        return replace(self, scale=factor * self.scale, shift=factor * self.shift + offset)

    def difference(self, other: Scale) -> tuple[float, float]:
        """The factor and offset that :meth:`transformed` takes from ``other`` to this scale."""
        factor = self.scale / other.scale
        return factor, self.shift - factor * other.shift


def metric_scale(scale: float, shift: float, source: str, stats: FitStats, shared: float = 0.0) -> Scale:
    """A metric Scale from the result of a fit; ``shared``: deviation by an error of all points."""
    inliers, residual, points = (float(value) for value in (stats.inlier_fraction, stats.residual, stats.points))
    # Two unknowns from this many inliers. Errors that all points share do not show in the residuals.
    deviation = math.hypot(shared, max(MIN_DEVIATION, residual * math.sqrt(2 / (inliers * points))))
    return Scale(scale, shift, source, metric=True, inlier_fraction=inliers, deviation=deviation)


def relative_scale(shift_over_scale: float = DEFAULT_SHIFT, source: str = "none", note: str = "") -> Scale:
    """A Scale without meters: the depth of the nearest point (disparity 1) is 1."""
    scale = 1 / (1 + shift_over_scale)
    return Scale(scale, shift_over_scale * scale, source, metric=False, note=note)
