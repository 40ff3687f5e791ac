"""From relative to metric: the scale of one camera's frames over time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from lotus2_ros.config import ScaleConfig
from lotus2_ros.geometry.alignment import AlignmentError
from lotus2_ros.geometry.reference import Reference, fit_to_reference

# Of an image that nothing is known of: the farthest point is eleven times as far as the nearest.
GUESSED_SHIFT = 0.1


@dataclass(frozen=True)
class Scale:
    """1 / depth = scale * disparity + shift; in metres if ``metric``, else up to one unknown factor."""

    scale: float
    shift: float
    source: str  # reference_depth | none
    metric: bool
    age: float = math.nan  # seconds between the fit's reference and the frame
    inlier_fraction: float = math.nan
    note: str = ""  # why the newest reference was not used


class Aligner:
    """Finds scale and shift of one camera's frames and keeps the last good fit for ``config.max_age`` seconds."""

    def __init__(self) -> None:
        self._last: tuple[Scale, float] | None = None  # the fit, and the stamp of its reference

    def align(self, disparity: Tensor, reference: Reference | None, stamp: float, config: ScaleConfig) -> Scale:
        """The scale of a frame of ``stamp`` seconds: a new fit, else the last one, else a relative one."""
        note = ""
        if config.source == "none":
            return relative_scale(config, note)
        if reference is not None:
            try:
                scale, shift, stats = fit_to_reference(disparity, reference)
                fit = Scale(scale, shift, reference.source, True, inlier_fraction=float(stats.inlier_fraction))
                self._last = fit, reference.stamp
            except AlignmentError as error:
                note = str(error)
        if self._last is None:
            return relative_scale(config, note)
        fit, fitted = self._last
        age = stamp - fitted
        # A fit from the future (a bag that started over, a clock that jumped) says nothing about this frame.
        if not -config.max_age <= age <= config.max_age:
            self._last = None
            return relative_scale(config, note or f"the last reference is {age:.1f} s old")
        return replace(fit, age=age, note=note)


def relative_scale(config: ScaleConfig, note: str = "") -> Scale:
    """The scale while nothing metric is known: a guessed shift, and a factor that puts the nearest point at 1."""
    shift = config.relative_shift or GUESSED_SHIFT
    return Scale(1 / (1 + shift), shift / (1 + shift), source="none", metric=False, note=note)
