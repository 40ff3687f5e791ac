"""One camera's scale from frame to frame: what is measured, what is expected, and how far to believe each."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

from torch import Tensor

from lotus2_ros.config import ScaleConfig
from lotus2_ros.scale.depth_shift import DepthShiftEstimator
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.scale import (
    Scale,
    ScaleInput,
    relative_scale,
    relative_shift,
    scale_of_height,
    scale_of_reference,
)
from lotus2_ros.scale.stats import AlignmentError
from lotus2_ros.scale.tracker import Tracker, TrackingResult

# A fit whose depths differ from what is expected by more than this factor is not believed at once,
GATE = 1.3
# but when so many in a row do. As many have to agree before anything is expected.
CONVINCING = 3
# How much the right scale of what the model says changes by itself, relative, in a second (as a random walk does),
# while the camera stands and while it moves.
CHANGE_STANDING, CHANGE_MOVING = 0.001, 0.1
# Measurements of the shift from normals that are averaged, while it stands and while it moves.
SHIFTS_STANDING, SHIFTS_MOVING = 20, 5
# Frames that are kept for references that come late, and their longer side in pixels.
REMEMBERED_FRAMES = 30
REMEMBERED_SIDE = 320


@dataclass(frozen=True)
class _PastFrame:
    """A frame that a late reference may belong to; its scale is kept up with what was learnt since."""

    stamp: float
    disparity: Tensor
    scale: Scale


class ScaleFilter:
    """Finds scale and shift of one camera's frames, and keeps them steady.

    *Measured* is what a reference says, or the known height above the floor, or without metres the normals. *Expected*
    is what leaves still things where they were (:class:`Tracker`) or else the scale of the last frame. Their mean is
    weighed by their variances (Kalman 1960): what is expected is as sure as what was measured before, less so with the
    time since, and soon unsure when the camera moves, so that its scale does not lag. A metric measurement holds for
    ``config.max_age`` seconds; in between, the scale follows what is expected. ``depth_shift`` is for models that
    predict depth.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.depth_shift = DepthShiftEstimator()
        self._tracker = Tracker()
        self._last: Scale | None = None  # of the last frame
        self._stamp = math.nan  # of the last frame, seconds
        self._fit: Scale | None = None  # the last metric measurement that was believed
        self._fit_stamp = math.nan  # of its reference
        self._variance = math.inf  # relative, of the metric scale that is expected
        self._shifts = 0.0  # measurements of the shift in the mean
        self._agreed = self._disagreed = 0  # metric measurements in a row
        self._past: deque[_PastFrame] = deque(maxlen=REMEMBERED_FRAMES)

    def wants_normals(self, stamp: float, reference: Reference | None, config: ScaleConfig) -> bool:
        """Whether the normals of the next frame, of ``stamp``, would be of use to :meth:`align`."""
        if reference is not None or self._reference_holds(stamp, config):
            return False
        return _by_height(config) or config.relative_shift == 0

    def align(self, frame: ScaleInput, reference: Reference | None, config: ScaleConfig) -> Scale:
        """The scale of the next frame. ``reference`` belongs to it, or is late and belongs to one before it."""
        # A clock that jumped, a bag that starts over: nothing remembered is about this frame.
        if not 0 <= frame.stamp - self._stamp <= max(1.0, config.max_age):
            self._forget()
        tracked = self._tracker.look(frame.disparity, frame.image) if config.tracking else TrackingResult()
        if tracked.cut:
            tracker = self._tracker
            self._forget()
            self._tracker = tracker
        self._grow_unsure(tracked.still, frame.stamp)
        # Nothing is expected of a frame that could not be compared: the first one, or the first to be tracked.
        expected = self._expected(tracked) if tracked.levels else None
        fit, stamp, note = self._measure(frame, expected, reference, config)
        if fit is not None and expected is not None and self._is_doubtful(fit, expected, tracked):
            note = f"the fit of {fit.source} differs from the last ones"
            fit = None
        if fit is not None:
            scale = self._believe(fit, stamp, expected)
        elif self._holds(frame.stamp, config):
            scale = self._carry(expected, note)
        else:
            scale = self._relative(frame, expected, tracked, config, note)
        if scale.metric:
            scale = replace(scale, age=frame.stamp - self._fit_stamp)
        return self._settle(frame, scale, expected, config)

    def _grow_unsure(self, still: float, stamp: float) -> None:
        """What is expected of a frame is less sure than what was known of the last one."""
        seconds = 0.0 if math.isnan(self._stamp) else stamp - self._stamp
        change = still * CHANGE_STANDING + (1 - still) * CHANGE_MOVING
        self._variance += change**2 * seconds
        most = still * SHIFTS_STANDING + (1 - still) * SHIFTS_MOVING
        self._shifts = min(self._shifts, most - 1)

    def _expected(self, tracked: TrackingResult) -> Scale | None:
        if self._last is None or tracked.line is None:
            return self._last
        return replace(self._last, scale=tracked.line[0], shift=tracked.line[1])

    def _measure(
        self, frame: ScaleInput, expected: Scale | None, reference: Reference | None, config: ScaleConfig
    ) -> tuple[Scale | None, float, str]:
        """A metric measurement, the time it is of, and why there is none or none from a reference."""
        note = ""
        if reference is not None and config.source != "none":
            try:
                return self._scale_of(reference, frame, expected, config.reference_slop), reference.stamp, ""
            except AlignmentError as error:
                note = str(error)
        if _by_height(config) and not self._reference_holds(frame.stamp, config):
            try:
                return scale_of_height(frame, config), frame.stamp, note
            except AlignmentError as error:
                note = "; ".join(filter(None, (note, str(error))))
        return None, math.nan, note

    def _scale_of(self, reference: Reference, frame: ScaleInput, expected: Scale | None, slop: float) -> Scale:
        """What a reference says of this frame; one that is late says it of its own frame, and that frame of this."""
        if abs(reference.stamp - frame.stamp) <= slop:
            return scale_of_reference(frame.disparity, reference)
        past = min(self._past, key=lambda past: abs(past.stamp - reference.stamp), default=None)
        if past is None or expected is None or abs(past.stamp - reference.stamp) > slop:
            raise AlignmentError(
                f"expected a reference within {slop:g} s of a frame, got one {frame.stamp - reference.stamp:.3f} s old"
            )
        fit = scale_of_reference(past.disparity, reference)
        factor = fit.scale / past.scale.scale
        moved = expected.changed(factor, fit.shift - factor * past.scale.shift)
        return replace(fit, scale=moved.scale, shift=moved.shift)

    def _is_doubtful(self, fit: Scale, expected: Scale, tracked: TrackingResult) -> bool:
        """Whether to wait for more fits that say the same."""
        if not expected.metric or self._agreed < CONVINCING:
            return False
        new, old = ([s.scale * level + s.shift for level in tracked.levels] for s in (fit, expected))
        agrees = all(1 / GATE <= n / max(o, 1e-9) <= GATE for n, o in zip(new, old, strict=True))
        self._disagreed = 0 if agrees else self._disagreed + 1
        return 0 < self._disagreed < CONVINCING

    def _believe(self, fit: Scale, stamp: float, expected: Scale | None) -> Scale:
        """The mean of a metric measurement and those before it."""
        variance = fit.deviation**2
        if expected is None or not expected.metric or self._disagreed:
            self._variance, self._agreed = math.inf, 0
        self._agreed, self._disagreed = self._agreed + 1, 0
        self._fit, self._fit_stamp = fit, stamp
        gain = 1.0 if math.isinf(self._variance) else self._variance / (self._variance + variance)
        self._variance = variance if math.isinf(self._variance) else (1 - gain) * self._variance
        if expected is None:
            return fit
        scale = expected.scale + gain * (fit.scale - expected.scale)
        return replace(fit, scale=scale, shift=expected.shift + gain * (fit.shift - expected.shift))

    def _holds(self, stamp: float, config: ScaleConfig) -> bool:
        """Whether the last metric measurement does for a frame of this time."""
        if self._fit is None or config.source not in ("auto", self._fit.source):
            return False
        return abs(stamp - self._fit_stamp) <= config.max_age

    def _reference_holds(self, stamp: float, config: ScaleConfig) -> bool:
        return self._fit is not None and self._fit.source != "camera_height" and self._holds(stamp, config)

    def _carry(self, expected: Scale | None, note: str) -> Scale:
        """The last metric measurement, as it holds for this frame."""
        assert self._fit is not None  # it holds
        line = expected or self._fit
        return replace(self._fit, scale=line.scale, shift=line.shift, note=note)

    def _relative(
        self, frame: ScaleInput, expected: Scale | None, tracked: TrackingResult, config: ScaleConfig, note: str
    ) -> Scale:
        """A scale without metres: the mean of the measured shifts; the factor leaves near things where they were."""
        if not note and self._fit is not None:
            note = f"the last fit of {self._fit.source} is {frame.stamp - self._fit_stamp:.1f} s old"
        try:
            shift, source = relative_shift(frame, config), "none" if config.relative_shift else "normals"
        except AlignmentError as error:
            note = note or str(error)
            if expected is None:
                return relative_scale(note=note)
            source = expected.source if expected.source == "normals" else "none"
            return replace(expected, source=source, metric=False, age=math.nan, inlier_fraction=math.nan, note=note)
        near = tracked.levels[-1] if tracked.levels else 0.0
        if expected is None or expected.scale * near + expected.shift <= 0:
            return relative_scale(shift, source, note)
        self._shifts += 1
        gain = 1 if config.relative_shift else 1 / self._shifts
        old = expected.shift / expected.scale
        shift = old + gain * (shift - old)
        scale = expected.scale * (near + old) / (near + shift)
        return Scale(scale, scale * shift, source, metric=False, note=note)

    def _settle(self, frame: ScaleInput, scale: Scale, expected: Scale | None, config: ScaleConfig) -> Scale:
        """Remember the frame, correct what is remembered of those before it, and steady the frame by that."""
        self._last, self._stamp = scale, frame.stamp
        if not config.tracking:
            return scale
        if expected is not None:
            factor = scale.scale / expected.scale
            offset = scale.shift - factor * expected.shift
            self._tracker.change(factor, offset)
            for number, past in enumerate(self._past):
                self._past[number] = replace(past, scale=past.scale.changed(factor, offset))
        step = max(1, max(frame.disparity.shape) // REMEMBERED_SIDE)
        self._past.append(_PastFrame(frame.stamp, frame.disparity[step // 2 :: step, step // 2 :: step].clone(), scale))
        return replace(scale, correction=self._tracker.settle(scale.scale, scale.shift))


def _by_height(config: ScaleConfig) -> bool:
    return config.camera_height > 0 and config.source in ("auto", "camera_height")
