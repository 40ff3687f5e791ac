"""From relative to metric: the scale of one camera's frames over time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lotus2_ros.config import ScaleConfig
from lotus2_ros.geometry.alignment import AlignmentError, fit_scale_shift
from lotus2_ros.geometry.depth import valid_depth

# More points make the fit slower, not better.
FIT_POINTS = 8192


@dataclass(frozen=True)
class Reference:
    """Measured depth of the camera's view, maybe sparse: (H', W') float32, metres along z; 0, NaN, Inf: unknown."""

    depth: Tensor
    stamp: float = 0.0  # seconds


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
                fit = fit_to_reference(disparity, reference)
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
    shift = config.relative_shift
    return Scale(1 / (1 + shift), shift / (1 + shift), source="none", metric=False, note=note)


def fit_to_reference(disparity: Tensor, reference: Reference) -> Scale:
    """Metric scale of ``disparity`` (H, W) from a reference of any size. Raises AlignmentError if there is none."""
    depth = reference.depth
    valid = valid_depth(depth)
    rows, columns = torch.nonzero(valid, as_tuple=True)
    keep = slice(None, None, max(1, math.ceil(len(rows) / FIT_POINTS)))
    rows, columns = rows[keep], columns[keep]
    measured = depth[rows, columns]
    # The pixel of the disparity image that each measurement falls into.
    at_v = ((rows + 0.5) * disparity.shape[0] / depth.shape[0]).long().to(disparity.device)
    at_u = ((columns + 0.5) * disparity.shape[1] / depth.shape[1]).long().to(disparity.device)
    predicted = disparity[at_v, at_u].to(depth.device)
    scale, shift, stats = fit_scale_shift(predicted, 1 / measured, torch.ones_like(measured))
    return Scale(scale, shift, "reference_depth", metric=True, age=0.0, inlier_fraction=stats.inlier_fraction)
