"""Measured depth from other sensors, kept until a frame of its time comes."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from torch import Tensor

from lotus2_ros.config import ScaleConfig
from lotus2_ros.config.live import LiveConfig
from lotus2_ros.config.names import DEPTH_INPUT, POINTS_INPUT
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.projection import sparse_depth
from lotus2_ros.ros.clouds import points_to_tensor
from lotus2_ros.ros.messages import MessageError, depth_to_tensor, only_message_errors, stamp_seconds
from lotus2_ros.ros.transforms import BY_TF, TransformPendingError, Transforms
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.sources import metric_sources

# The topic of each scale source that another sensor measures.
REFERENCE_TOPICS = {"reference_depth": DEPTH_INPUT, "reference_points": POINTS_INPUT}
# Measurements of each source: at least so many, and more of a fast sensor, whose newest ones an image is later than.
KEPT, MOST = 10, 200
SPAN = 1.0  # seconds that the others may be older than the newest one
MEMORY = 16e6  # bytes of all
MAX_AHEAD = 1.0  # seconds that another sensor's clock may be ahead of the camera's, whatever scale.max_age is
JUMP = 1.0  # seconds back, from which transforms on /tf start over; tf2_ros has the same for a jump of the node's clock
MAX_TRANSFORM_WAIT = 1.0  # seconds that points wait for their transform on /tf


@dataclass(eq=False)
class Measurement:
    """A message of a reference topic: depth (H, W) or points (N, 3) in the header's frame, meters."""

    source: str
    header: Header
    values: Tensor
    frame_stamp: float  # of the newest frame when it arrived
    arrived: float = field(default_factory=lambda: time.monotonic())
    projected: tuple[Camera, Reference] | None = None  # the values in the view of a camera
    waits_for: TransformPendingError | None = None

    @property
    def stamp(self) -> float:
        return stamp_seconds(self.header)

    @property
    def bytes(self) -> int:
        return self.values.nbytes + (0 if self.projected is None else self.projected[1].depth.nbytes)


class Rejecting(Protocol):
    """Where rejected messages are counted and named."""

    def reject(self, reason: str, text: str, frame: bool = True) -> None: ...


class References:
    """The newest measurements of each source. Executor and decoder thread fill it, the model thread reads it."""

    def __init__(self, diagnostics: Rejecting, config: LiveConfig, transforms: Transforms) -> None:
        self._diagnostics = diagnostics
        self._config = config
        self._transforms = transforms
        self._lock = threading.Lock()
        self._newest: dict[str, deque[Measurement]] = {source: deque() for source in REFERENCE_TOPICS}
        # In the model thread: the stamp of the last frame, and of the newest measurement that a frame got.
        self._frame_stamp = -math.inf
        self._used = dict.fromkeys(REFERENCE_TOPICS, -math.inf)

    def depth(self, message: Image | CompressedImage) -> None:
        config = self._config.current.input
        self._add("reference_depth", message, lambda message: depth_to_tensor(message, config))

    def points(self, message: PointCloud2) -> None:
        if self._config.current.scale.points_transform == BY_TF:
            self._transforms.listen()
        self._add("reference_points", message, points_to_tensor)

    def for_frame(self, header: Header, camera: Camera, config: ScaleConfig, refused: str = "") -> Reference | None:
        """The reference to fit with the frame of ``header``, of the first source that has one.

        It is the one nearest in time within ``config.reference_slop``. Otherwise it is, once, the newest of those that
        came too late for a frame of their own. Points without a transform yet wait for it. Measurements that cannot
        belong to this camera or time are rejected. The source ``refused``, whose last reference determined no scale, is
        asked after the others.
        """
        stamp = stamp_seconds(header)
        self._follow_clock(stamp)
        sources = [source.name for source in metric_sources(config) if source.name in REFERENCE_TOPICS]
        for source in sorted(sources, key=lambda name: name == refused):
            self._reject_unusable(source, header, config)
            for measurement in self._candidates(source, stamp, config):
                reference = self._reference(measurement, header.frame_id, camera, config)
                if reference is not None:
                    self._used[source] = max(self._used[source], measurement.stamp)
                    return reference
        return None

    def _add(self, source: str, message: Any, convert: Callable[[Any], Tensor]) -> None:
        try:
            with only_message_errors():
                measurement = Measurement(source, message.header, convert(message), self._frame_stamp)
        except MessageError as error:
            reason = "reference_" + error.reason.removeprefix("image_")
            self._diagnostics.reject(reason, f"{REFERENCE_TOPICS[source]}: {error}", frame=False)
            return
        with self._lock:
            newest = self._newest[source]
            newest.append(measurement)
            dropped = [newest.popleft() for _ in range(_too_many(newest))]
        for old in dropped:
            if old.waits_for is not None and old.stamp > self._used[source]:
                self._reject(old, old.waits_for.reason, str(old.waits_for))

    def _known(self, source: str) -> list[Measurement]:
        with self._lock:
            return list(self._newest[source])

    def _forget(self, measurement: Measurement) -> None:
        with self._lock:
            if measurement in self._newest[measurement.source]:
                self._newest[measurement.source].remove(measurement)

    def _reject(self, measurement: Measurement, reason: str, text: str) -> None:
        self._forget(measurement)
        self._diagnostics.reject(reason, f"{REFERENCE_TOPICS[measurement.source]}: {text}", frame=False)

    def _follow_clock(self, stamp: float) -> None:
        """When time jumps back, as a bag that starts over does, forget what is from before the jump."""
        if stamp < self._frame_stamp - JUMP:
            self._transforms.clear()
        if stamp < self._frame_stamp:
            for source in REFERENCE_TOPICS:
                self._used[source] = -math.inf
                for measurement in self._known(source):
                    if measurement.stamp > stamp + MAX_AHEAD:
                        self._forget(measurement)
        self._frame_stamp = stamp

    def _reject_unusable(self, source: str, header: Header, config: ScaleConfig) -> None:
        """Reject measurements of another time, by a clock that is not the camera's, and depth of another camera."""
        limit, stamp = max(config.max_age, MAX_AHEAD), stamp_seconds(header)
        for measurement in self._known(source):
            ahead, frame = measurement.stamp - stamp, measurement.header.frame_id
            if ahead > limit:
                text = f"expected a stamp at most {limit:g} s ahead of the newest image's, got {ahead:.3f} s"
                self._reject(measurement, "reference_future", text)
            elif measurement.stamp < min(stamp, measurement.frame_stamp) - limit:
                text = f"expected a stamp at most {limit:g} s behind the newest image's, got {-ahead:.3f} s"
                self._reject(measurement, "reference_past", text)
            elif source == "reference_depth" and frame and header.frame_id and frame != header.frame_id:
                text = f"expected depth in the image's frame {header.frame_id!r}, got {frame!r}"
                self._reject(measurement, "reference_frame", text)

    def _candidates(self, source: str, stamp: float, config: ScaleConfig) -> list[Measurement]:
        """Measurements for a frame of ``stamp``, best first: those within reference_slop, then the late ones.

        Late ones are at most max_age old: a fit to an older one would not be used, and would hide other sources.
        """
        known = sorted(self._known(source), key=lambda measurement: abs(measurement.stamp - stamp))
        near = [measurement for measurement in known if config.is_near(measurement.stamp, stamp)]
        oldest = max(self._used[source], stamp - config.max_age)
        return near + [m for m in known if m not in near and oldest < m.stamp < stamp]

    def _reference(
        self, measurement: Measurement, frame_id: str, camera: Camera, config: ScaleConfig
    ) -> Reference | None:
        """The measurement in the view of ``camera``, computed once; None if it is rejected or waits."""
        if measurement.projected is None or measurement.projected[0] is not camera:
            depth = measurement.values
            try:
                if measurement.source == "reference_points":
                    depth = self._project(measurement, frame_id, camera, config)
            except TransformPendingError as error:
                measurement.waits_for = error
                if time.monotonic() - measurement.arrived > MAX_TRANSFORM_WAIT:
                    self._reject(measurement, error.reason, str(error))
                return None
            except MessageError as error:
                self._reject(measurement, error.reason, str(error))
                return None
            measurement.waits_for = None
            measurement.projected = camera, Reference(depth, measurement.stamp, measurement.source)
        return measurement.projected[1]

    def _project(self, cloud: Measurement, frame_id: str, camera: Camera, config: ScaleConfig) -> Tensor:
        """Points as sparse depth of the camera. Raises MessageError."""
        points = self._transforms.to_camera(cloud.values, cloud.header, frame_id, config.points_transform)
        depth = sparse_depth(points, camera)
        if not bool(torch.isfinite(depth).any()):
            got = f"got {len(points)}, none of them in its image"
            raise MessageError("reference_empty", f"expected points that the camera sees, {got}")
        return depth


def _too_many(measurements: Sequence[Measurement]) -> int:
    """How many of the oldest to drop; the last one is the newest."""
    kept, size = 0, 0
    for measurement in reversed(measurements):
        size += measurement.bytes
        is_old = measurement.stamp < measurements[-1].stamp - SPAN
        if kept >= KEPT and (kept == MOST or size > MEMORY or is_old):
            break
        kept += 1
    return len(measurements) - kept
