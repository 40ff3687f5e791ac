"""The local field from frame to frame."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from lotus2_ros.scale.field import fit_field
from lotus2_ros.scale.history import PastFrame
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.scale import Scale

# Largest number of fields in the average of a static pixel.
MAX_FIELDS = 100
# Seconds in which the field falls to 1 / e: where something moves, and with the age of the last reference elsewhere.
FADE_MOVING, FADE_STATIC = 0.5, 10.0
# A smaller largest logarithm is no field.
NEGLIGIBLE = 1e-3


class FieldTracker:
    """Averages the local fields of one camera where it is static; elsewhere the newest counts. Without one it fades."""

    def __init__(self) -> None:
        self._log_factor: Tensor | None = None
        self._fields = torch.empty(0)  # in the average of each pixel
        self._stamp = self._error = math.nan
        self._farthest = math.inf

    def carry(self, still: Tensor | None, stamp: float) -> None:
        """Fade the field to the frame of ``stamp``; ``still`` (h, w): from 0, a pixel moved, to 1, it is static."""
        if self._log_factor is None:
            return
        if still is None or still.shape != self._log_factor.shape:
            still = torch.zeros_like(self._log_factor)
        self._log_factor = self._log_factor * _fading(still, stamp - self._stamp)
        self._fields = self._fields * still
        self._stamp = stamp

    def add(self, seen: PastFrame, reference: Reference, still: Tensor | None, stamp: float) -> None:
        """Add the field of a reference; ``seen`` is the frame that it belongs to, maybe before that of ``stamp``."""
        new = fit_field(seen.geometry, seen.scale, reference)
        log_factor = new.log_factor
        if seen.geometry.stamp < stamp:
            if still is None or still.shape != log_factor.shape:
                still = torch.zeros_like(log_factor)
            log_factor = log_factor * _fading(still, stamp - seen.geometry.stamp)
        if self._log_factor is None or self._log_factor.shape != log_factor.shape:
            self._log_factor, self._fields = log_factor, torch.zeros_like(log_factor)
        self._fields = (self._fields + 1).clamp_max(MAX_FIELDS)
        self._log_factor = torch.lerp(self._log_factor, log_factor, 1 / self._fields)
        self._stamp, self._error, self._farthest = stamp, new.error, new.farthest

    def apply(self, scale: Scale) -> Scale:
        """The scale with the field, which is weaker the larger the scale's age."""
        if self._log_factor is None:
            return scale
        scale = replace(scale, reference_error=self._error)
        local = self._log_factor * math.exp(-abs(scale.age) / FADE_STATIC)
        if float(local.abs().amax()) < NEGLIGIBLE:
            return scale
        return replace(scale, local=local, farthest=self._farthest)


def _fading(still: Tensor, seconds: float) -> Tensor:
    return ((still - 1) * (abs(seconds) / FADE_MOVING)).exp()
