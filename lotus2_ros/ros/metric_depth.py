"""The metric depth model beside the model: one step now and then, between two frames."""

from __future__ import annotations

import time
from collections.abc import Callable

from torch import Tensor

from lotus2_ros.config.live import LiveConfig
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.metric_model import METRIC_MODEL, MetricModel
from lotus2_ros.scale.reference import Reference


class MetricDepth:
    """Runs a metric depth model every ``scale.metric_period`` seconds, in the model's thread."""

    def __init__(
        self, model: MetricModel | None, config: LiveConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._model = model
        self._config = config
        self._clock = clock
        self._started = -float("inf")
        self._reference: Reference | None = None

    def take(self) -> Reference | None:
        """The depth of an earlier frame, once."""
        reference, self._reference = self._reference, None
        return reference

    def run(self, image: Tensor, camera: Camera, stamp: float, scale_filter: ScaleFilter) -> None:
        """Estimate the depth of a frame (H, W, 3) uint8 whose result is on its way, if that is due and of use."""
        scale, now = self._config.current.scale, self._clock()
        if self._model is None or now < self._started + scale.metric_period:
            return
        if scale_filter.wants(METRIC_MODEL, stamp, scale):
            self._started = now
            self._reference = self._model.reference(image, camera, stamp)
