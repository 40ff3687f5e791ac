"""A Kalman filter for the scale of one camera's frames."""

from __future__ import annotations

import math
from dataclasses import replace

from lotus2_ros.config import ScaleConfig
from lotus2_ros.scale.depth_shift import DepthShiftEstimator
from lotus2_ros.scale.field_tracker import FieldTracker
from lotus2_ros.scale.fit import AlignmentError
from lotus2_ros.scale.gate import Gate
from lotus2_ros.scale.history import History, PastFrame
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.relative import RelativeScaleMean
from lotus2_ros.scale.scale import RelativeGeometry, Scale
from lotus2_ros.scale.sources import ScaleSource, is_better, metric_sources, relative_source
from lotus2_ros.scale.spread import Spread
from lotus2_ros.scale.tracker import Registration, Tracker

# Process noise: relative standard deviation of the scale after one second, for a static and for a moving camera.
NOISE_STATIC, NOISE_MOVING = 0.001, 0.1


class ScaleFilter:
    """Estimates scale and shift of one camera's frames and keeps them steady.

    Each frame goes through the steps of a Kalman filter (Kalman 1960):

    - *predict*: the scale and shift that leave static surfaces where they were (:class:`Tracker`), or those of the last
      frame. The variance grows with time, fast while the camera moves, so that the scale does not lag.
    - *measure*: the best of the scale sources, see :mod:`lotus2_ros.scale.sources`.
    - *gate*: an outlier is rejected until several measurements in a row confirm it.
    - *update*: the mean of prediction and measurement, weighted by their variances.
    - *local field*: what remains at the points of a reference, see :mod:`lotus2_ros.scale.field`.

    A metric measurement stays valid for ``config.max_age`` seconds. Until then, frames without one take the prediction.
    After that the scale is relative. ``depth_shift`` is the estimate for models that predict affine-invariant depth.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.depth_shift = DepthShiftEstimator()
        self._tracker = Tracker()
        self._field = FieldTracker()
        self._last: Scale | None = None  # of the last frame
        self._stamp = math.nan  # of the last frame, seconds
        self._measured: Scale | None = None  # last accepted metric measurement
        self._measured_stamp = math.nan  # of its reference, seconds
        self._variance = math.inf  # relative, of the predicted metric scale
        self._drift = 0.0  # part of it that came after the last measurement
        self._relative = RelativeScaleMean()
        self._gate = Gate()
        self._history = History()
        self.refused = ""  # the source of the last frame's reference, if that did not determine a scale

    def wants_normals(self, stamp: float, reference: Reference | None, config: ScaleConfig) -> bool:
        """Whether :meth:`align` can use normals for the next frame, which has this ``stamp`` and ``reference``."""
        for source in (*metric_sources(config), relative_source(config)):
            if source.needs_reference:
                if reference is not None and reference.source == source.name and not self.wants_other(reference):
                    return False
            else:
                return "normals" in source.needs and not self._is_superseded(source, stamp, config)
        return False

    def wants(self, name: str, stamp: float, config: ScaleConfig) -> bool:
        """Whether :meth:`align` can use a reference of the source ``name`` for a frame of ``stamp``."""
        found = next((source for source in metric_sources(config) if source.name == name), None)
        return found is not None and not (found.yields and self._is_superseded(found, stamp, config))

    def wants_other(self, reference: Reference | None) -> bool:
        """Whether other sources should be asked too: there is no reference, or the last of its source was refused."""
        return reference is None or bool(reference.problem) or reference.source == self.refused

    def align(
        self,
        frame: RelativeGeometry,
        reference: Reference | None,
        config: ScaleConfig,
        *,
        with_sigma: bool = False,
    ) -> Scale:
        """The scale of the next frame. ``reference`` belongs to this frame, or to an earlier one if it is late.

        ``with_sigma``: a metric scale has a :class:`Spread` too.
        """
        # After a jump of the clock, or when a bag starts over, nothing known applies to this frame.
        if not 0 <= frame.stamp - self._stamp <= max(1.0, config.max_age):
            self._reset()
        # A reference is compared with all pixels; otherwise the tracker needs only a small picture.
        registration = self._register(frame if reference is None else frame.on_host, config)
        predicted = self._predict(registration, frame.stamp)
        measured, stamp, note = self._measure(frame, predicted, reference, config)
        if measured is not None and not self._gate.passes(measured, predicted, registration.disparities):
            note = f"the fit of {measured.source} differs from the last ones"
            measured = None
        if measured is not None:
            scale = self._update(measured, stamp, predicted)
        elif self._is_valid(frame.stamp, config):
            scale = self._coast(predicted, note)
        else:
            note = note or self._expired(frame.stamp)
            scale = self._relative.update(frame, predicted, registration, config, note)
        if scale.metric:
            scale = replace(scale, age=frame.stamp - self._measured_stamp)
        scale = self._remember(frame, scale, predicted, config)
        is_used = measured is not None and reference is not None and measured.source == reference.source
        scale = self._localize(frame, scale, reference if is_used else None, config, with_sigma)
        if not (with_sigma and scale.metric):
            return scale
        return replace(scale, spread=Spread(scale.source, scale.scale, self._drift, self._field.errors))

    def _register(self, frame: RelativeGeometry, config: ScaleConfig) -> Registration:
        """Compare the frame with those before it; a scene cut resets the filter."""
        if not config.tracking or frame.image is None:
            return Registration()
        registration = self._tracker.register(frame.disparity, frame.image)
        if registration.scene_cut:
            tracker = self._tracker
            self._reset()
            self._tracker = tracker
        return registration

    def _predict(self, registration: Registration, stamp: float) -> Scale | None:
        """The expected scale, and its variance. None if there is nothing to compare the frame with."""
        seconds = 0.0 if math.isnan(self._stamp) else stamp - self._stamp
        static = registration.stationarity
        noise = (static * NOISE_STATIC + (1 - static) * NOISE_MOVING) ** 2 * seconds
        self._variance += noise
        self._drift += noise
        self._relative.age(static)
        if self._last is None or not registration.disparities:
            return None
        if registration.scale_shift is None:
            return self._last
        scale, shift = registration.scale_shift
        return replace(self._last, scale=scale, shift=shift)

    def _measure(
        self, frame: RelativeGeometry, predicted: Scale | None, reference: Reference | None, config: ScaleConfig
    ) -> tuple[Scale | None, float, str]:
        """The best metric measurement and its stamp; or none, and why."""
        notes: list[str] = []
        self.refused = ""
        for source in metric_sources(config):
            if source.yields and self._is_superseded(source, frame.stamp, config):
                continue
            try:
                if not source.needs_reference:
                    measured = source.measure(frame, None, config)
                    return replace(measured, note="; ".join(notes)), frame.stamp, ""
                if reference is not None and reference.source == source.name:
                    measured = self._measure_reference(source, frame, predicted, reference, config)
                    return replace(measured, note="; ".join(notes)), reference.stamp - reference.age, ""
            except AlignmentError as error:
                notes.append(str(error))
                if source.needs_reference:
                    self.refused = source.name
        return None, math.nan, "; ".join(notes)

    def _measure_reference(
        self,
        source: ScaleSource,
        frame: RelativeGeometry,
        predicted: Scale | None,
        reference: Reference,
        config: ScaleConfig,
    ) -> Scale:
        """The scale of a frame by a reference. A late one is fitted to its own frame and carried over to this one."""
        if reference.age > config.max_age:
            raise AlignmentError(f"the points of {source.name} are {reference.age:.1f} s old")
        if config.is_near(reference.stamp, frame.stamp):
            return source.measure(frame, reference, config)
        past = self._history.nearest(reference.stamp, config)
        if past is None or predicted is None:
            raise AlignmentError(
                f"expected a reference within {config.reference_slop:g} s of a frame, got one "
                f"{frame.stamp - reference.stamp:.3f} s old"
            )
        measured = source.measure(past.geometry, reference, config)
        carried = predicted.transformed(*measured.difference(past.scale))
        return replace(measured, scale=carried.scale, shift=carried.shift)

    def _update(self, measured: Scale, stamp: float, predicted: Scale | None) -> Scale:
        """The Kalman update of a metric scale."""
        if self._gate.accept(predicted):
            self._variance = math.inf
        self._measured, self._measured_stamp, self._drift = measured, stamp, 0.0
        variance = measured.deviation**2
        gain = 1.0 if math.isinf(self._variance) else self._variance / (self._variance + variance)
        self._variance = variance if math.isinf(self._variance) else (1 - gain) * self._variance
        if predicted is None:
            return measured
        scale = predicted.scale + gain * (measured.scale - predicted.scale)
        return replace(measured, scale=scale, shift=predicted.shift + gain * (measured.shift - predicted.shift))

    def _coast(self, predicted: Scale | None, note: str) -> Scale:
        """The prediction in place of a measurement, with the properties of the last one."""
        assert self._measured is not None  # it is valid
        source = predicted or self._measured
        return replace(self._measured, scale=source.scale, shift=source.shift, note=note)

    def _expired(self, stamp: float) -> str:
        """Why the last metric measurement is not used any more; empty if there was none."""
        if self._measured is None:
            return ""
        return f"the last fit of {self._measured.source} is {stamp - self._measured_stamp:.1f} s old"

    def _remember(self, frame: RelativeGeometry, scale: Scale, predicted: Scale | None, config: ScaleConfig) -> Scale:
        """Store the frame, correct the past by the update, and add the tracker's correction to the scale."""
        self._last, self._stamp = scale, frame.stamp
        if not config.tracking or frame.image is None:
            return scale
        if predicted is not None:
            correction = scale.difference(predicted)
            self._tracker.transform(*correction)
            self._history.transform(*correction)
        self._history.add(frame, scale)
        return replace(scale, correction=self._tracker.update(scale.scale, scale.shift))

    def _localize(
        self, frame: RelativeGeometry, scale: Scale, new: Reference | None, config: ScaleConfig, with_errors: bool
    ) -> Scale:
        """The scale with the local field; ``new`` is the reference that was accepted for this frame."""
        is_wanted = config.local_field or with_errors
        if not (is_wanted and scale.metric and scale.source.startswith("reference")):
            self._field = FieldTracker()
            return scale
        still = self._tracker.still if config.tracking and frame.image is not None else None
        self._field.carry(still, self._tracker.agrees, frame.stamp)
        if new is not None:
            late = not config.is_near(new.stamp, frame.stamp)
            past = self._history.nearest(new.stamp, config) if late else None
            seen = past or PastFrame(frame, scale)
            self._field.add(seen, new, still, frame.stamp, use=config.local_field, with_errors=with_errors)
        return self._field.apply(scale)

    def _is_valid(self, stamp: float, config: ScaleConfig) -> bool:
        """Whether the last metric measurement still holds at ``stamp``."""
        if self._measured is None or config.source not in ("auto", self._measured.source):
            return False
        return abs(stamp - self._measured_stamp) <= config.max_age

    def _is_superseded(self, source: ScaleSource, stamp: float, config: ScaleConfig) -> bool:
        """Whether the last measurement still holds and is of a better source."""
        measured = self._measured
        return measured is not None and self._is_valid(stamp, config) and is_better(measured.source, source.name)
