"""The scale of one camera's frames while nothing gives meters."""

from __future__ import annotations

import math
from dataclasses import replace

from lotus2_ros.config import ScaleConfig
from lotus2_ros.scale.fit import AlignmentError
from lotus2_ros.scale.scale import RelativeGeometry, Scale, relative_scale
from lotus2_ros.scale.sources import relative_source
from lotus2_ros.scale.tracker import Registration

# Measurements in the running mean of the shift, for a static and for a moving camera.
STATIC, MOVING = 20, 5


class RelativeScaleMean:
    """The running mean of the measured shifts, with a factor that keeps near surfaces in place."""

    def __init__(self) -> None:
        self._count = 0.0  # measurements in the mean

    def age(self, stationarity: float) -> None:
        """Call once per frame: while the camera moves, old measurements count less."""
        self._count = min(self._count, stationarity * STATIC + (1 - stationarity) * MOVING - 1)

    def update(
        self,
        frame: RelativeGeometry,
        predicted: Scale | None,
        registration: Registration,
        config: ScaleConfig,
        note: str,
    ) -> Scale:
        """The scale of the next frame; ``note`` says why it is not metric."""
        source = relative_source(config)
        try:
            measured = source.measure(frame, None, config)
        except AlignmentError as error:
            note = note or str(error)
            if predicted is None:
                return relative_scale(note=note)
            name = "none" if predicted.metric else predicted.source
            return replace(predicted, source=name, metric=False, age=math.nan, inlier_fraction=math.nan, note=note)
        near = registration.disparities[-1] if registration.disparities else 0.0
        if predicted is None or predicted.scale * near + predicted.shift <= 0:
            return replace(measured, note=note)
        self._count += 1
        gain = 1 / self._count if source.needs else 1.0  # a configured shift has no noise
        old = predicted.shift / predicted.scale
        shift = old + gain * (measured.shift / measured.scale - old)
        scale = predicted.scale * (near + old) / (near + shift)
        return replace(measured, scale=scale, shift=scale * shift, note=note)
