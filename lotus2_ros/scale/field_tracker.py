"""The local field from frame to frame."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from lotus2_ros.scale.errors import Errors
from lotus2_ros.scale.field import fit_field
from lotus2_ros.scale.grid import resized
from lotus2_ros.scale.history import PastFrame
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.scale import Scale
from lotus2_ros.scale.spread import ErrorGrid
from lotus2_ros.scale.spread_calibration import SpreadCalibration

# Largest number of fields in the average of a static pixel, and after its depth changed while the image did not:
# flicker, or an object that came unnoticed, which a few references then tell.
MAX_FIELDS, MAX_FIELDS_CHANGED = 100, 4
# Seconds in which the field falls to 1 / e where something moves.
FADE_MOVING = 1.0
# A smaller largest logarithm is no field.
NEGLIGIBLE = 0.01


class FieldTracker:
    """Averages the local fields of one camera where it is static; elsewhere the newest counts. Without one it fades.

    So does how much the errors of a place differ from the line's, if :meth:`add` is asked for them.
    """

    def __init__(self) -> None:
        self._grids: Tensor | None = None  # (2, h, w): logarithm of the factor on depth, log_excess of the errors
        self._fields = torch.empty(0)  # in the average of each pixel
        self._stamp = self._error = math.nan
        self._farthest = math.inf
        self._errors: Errors | None = None
        self._calibration = SpreadCalibration()

    def carry(self, still: Tensor | None, agrees: Tensor | None, stamp: float) -> None:
        """Fade the field to the frame of ``stamp``.

        ``still`` (h, w): from 0, a pixel moved, to 1, it is static; ``agrees`` (h, w): its depth is as before.
        """
        if self._grids is None:
            return
        if still is None or agrees is None:
            still, agrees = torch.zeros_like(self._fields), torch.ones_like(self._fields)
        still, agrees = (resized(each[None].float(), *self._fields.shape)[0] for each in (still, agrees))
        self._grids = self._grids * _fading(still, stamp - self._stamp)
        self._fields = torch.where(agrees > 0.5, self._fields, self._fields.clamp_max(MAX_FIELDS_CHANGED)) * still
        self._stamp = stamp

    def add(
        self,
        seen: PastFrame,
        reference: Reference,
        still: Tensor | None,
        stamp: float,
        *,
        use: bool = True,
        with_errors: bool = False,
    ) -> None:
        """Add the field of a reference; ``seen`` is the frame that it belongs to, maybe before that of ``stamp``.

        Without ``use`` the field is zero, and the errors are those of the line.
        """
        new = fit_field(seen.geometry, seen.scale, reference, use=use, with_errors=with_errors)
        grids = torch.stack((new.log_factor, torch.zeros_like(new.log_factor)))
        if new.errors is not None:
            grids[1] = new.errors.log_excess
            self._calibration.add(new.errors)
        if seen.geometry.stamp < stamp:
            still = torch.zeros_like(grids[:1]) if still is None else resized(still[None], *grids.shape[1:])
            grids = grids * _fading(still, stamp - seen.geometry.stamp)
        if self._grids is None:
            self._grids, self._fields, self._farthest = grids, torch.zeros_like(grids[0]), new.farthest
        if self._grids.shape != grids.shape:
            self._grids = resized(self._grids, *grids.shape[1:])
            self._fields = resized(self._fields[None], *grids.shape[1:])[0]
        self._fields = (self._fields + 1).clamp_max(MAX_FIELDS)
        self._grids = torch.lerp(self._grids, grids, 1 / self._fields)
        self._farthest += float((1 / self._fields).mean()) * (new.farthest - self._farthest)
        self._stamp, self._error, self._errors = stamp, new.error, new.errors

    def apply(self, scale: Scale) -> Scale:
        """The scale with the field."""
        if self._grids is None:
            return scale
        scale = replace(scale, reference_error=self._error)
        local = self._grids[0]
        if float(local.abs().amax()) < NEGLIGIBLE:
            return scale
        return replace(scale, local=local, farthest=self._farthest)

    @property
    def errors(self) -> ErrorGrid | None:
        """The errors of the depth over the image; None if the last reference was not asked for them."""
        if self._grids is None or self._errors is None:
            return None
        log_sigma = self._errors.log_line + self._grids[1]
        return ErrorGrid(log_sigma, self._errors.reach, self._calibration.factor())


def _fading(still: Tensor, seconds: float) -> Tensor:
    return ((still - 1) * (abs(seconds) / FADE_MOVING)).exp()
