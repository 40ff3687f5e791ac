"""Measured depth from other sensors, kept until a frame of its time comes."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rclpy.node import Node
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header
from torch import Tensor

from lotus2_ros.config import Config, ScaleConfig
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.projection import sparse_depth
from lotus2_ros.ros.clouds import points_to_tensor
from lotus2_ros.ros.diagnostics import Diagnostics
from lotus2_ros.ros.messages import MessageError, depth_to_tensor, stamp_seconds
from lotus2_ros.ros.transforms import BY_TF, Transforms
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.sources import metric_sources

# The topic of each scale source that needs references.
TOPICS = {"reference_depth": "reference/depth", "reference_points": "reference/points"}
REMEMBERED = 10  # of each
AHEAD = 1.0  # seconds that another sensor's clock may be ahead of the camera's, whatever scale.max_age is


@dataclass(eq=False)
class Measurement:
    """What came on a reference topic: depth (H, W) or points (N, 3) in the header's frame, metres."""

    source: str
    header: Header
    values: Tensor
    projected: tuple[Camera, Reference] | None = None  # as the camera sees it

    @property
    def stamp(self) -> float:
        return stamp_seconds(self.header)


class References:
    """The newest references of each source. Filled by the node's thread, read by the model's."""

    def __init__(self, node: Node, health: Diagnostics, config: Callable[[], Config]) -> None:
        self._health = health
        self._config = config
        self._transforms = Transforms(node)
        self._lock = threading.Lock()
        self._newest: dict[str, deque[Measurement]] = {source: deque(maxlen=REMEMBERED) for source in TOPICS}
        # Of the model's thread: stamps of the last frame, and of the newest reference that was given to one.
        self._frame = -math.inf
        self._given = dict.fromkeys(TOPICS, -math.inf)

    def close(self) -> None:
        self._transforms.close()

    def depth(self, message: Image) -> None:
        self._add("reference_depth", message, depth_to_tensor)

    def points(self, message: PointCloud2) -> None:
        if self._config().scale.points_transform == BY_TF:
            self._transforms.listen()
        self._add("reference_points", message, points_to_tensor)

    def for_frame(self, header: Header, camera: Camera, config: ScaleConfig) -> Reference | None:
        """The reference to fit with the frame of ``header``, of the first source that has one.

        It is the one nearest in time within ``config.reference_slop``; else, once, the newest of those that came too
        late for a frame of their own. What cannot be of this camera and time is rejected and forgotten.
        """
        stamp = stamp_seconds(header)
        self._follow_clock(stamp)
        for source in (source.name for source in metric_sources(config) if source.needs_reference):
            self._sort_out(source, header, config)
            chosen = self._choose(source, stamp, config.reference_slop)
            reference = None if chosen is None else self._reference(chosen, header.frame_id, camera, config)
            if chosen is not None and reference is not None:
                self._given[source] = max(self._given[source], chosen.stamp)
                return reference
        return None

    def _add(self, source: str, message: Any, convert: Callable[[Any], Tensor]) -> None:
        try:
            measurement = Measurement(source, message.header, convert(message))
        except MessageError as error:
            reason = "reference_" + error.reason.removeprefix("image_")
            self._health.reject(reason, f"{TOPICS[source]}: {error}", frame=False)
            return
        with self._lock:
            self._newest[source].append(measurement)

    def _known(self, source: str) -> list[Measurement]:
        with self._lock:
            return list(self._newest[source])

    def _forget(self, measurement: Measurement) -> None:
        with self._lock:
            if measurement in self._newest[measurement.source]:
                self._newest[measurement.source].remove(measurement)

    def _reject(self, measurement: Measurement, reason: str, text: str) -> None:
        self._forget(measurement)
        self._health.reject(reason, f"{TOPICS[measurement.source]}: {text}", frame=False)

    def _follow_clock(self, stamp: float) -> None:
        """When time jumps back (a bag that starts over), what is from before the jump is nobody's mistake."""
        if stamp < self._frame:
            for source in TOPICS:
                self._given[source] = -math.inf
                for measurement in self._known(source):
                    if measurement.stamp > stamp + AHEAD:
                        self._forget(measurement)
        self._frame = stamp

    def _sort_out(self, source: str, header: Header, config: ScaleConfig) -> None:
        """Reject what is from the future, and depth of another camera's view."""
        limit = max(config.max_age, AHEAD)
        for measurement in self._known(source):
            ahead, frame = measurement.stamp - stamp_seconds(header), measurement.header.frame_id
            if ahead > limit:
                text = f"expected a stamp at most {limit:g} s ahead of the newest image's, got {ahead:.3f} s"
                self._reject(measurement, "reference_future", text)
            elif source == "reference_depth" and frame and header.frame_id and frame != header.frame_id:
                text = f"expected depth in the image's frame {header.frame_id!r}, got {frame!r}"
                self._reject(measurement, "reference_frame", text)

    def _choose(self, source: str, stamp: float, slop: float) -> Measurement | None:
        known = self._known(source)
        nearest = min(known, key=lambda measurement: abs(measurement.stamp - stamp), default=None)
        if nearest is not None and abs(nearest.stamp - stamp) <= slop:
            return nearest
        late = [measurement for measurement in known if self._given[source] < measurement.stamp < stamp]
        return max(late, key=lambda measurement: measurement.stamp, default=None)

    def _reference(
        self, measurement: Measurement, frame_id: str, camera: Camera, config: ScaleConfig
    ) -> Reference | None:
        """The measurement as ``camera`` sees it, computed once; None when it is rejected."""
        if measurement.projected is None or measurement.projected[0] is not camera:
            depth = measurement.values
            try:
                if measurement.source == "reference_points":
                    depth = self._project(measurement, frame_id, camera, config)
            except MessageError as error:
                self._reject(measurement, error.reason, str(error))
                return None
            measurement.projected = camera, Reference(depth, measurement.stamp, measurement.source)
        return measurement.projected[1]

    def _project(self, cloud: Measurement, frame_id: str, camera: Camera, config: ScaleConfig) -> Tensor:
        """Points as sparse depth of the camera. Raises MessageError."""
        points = self._transforms.to_camera(cloud.values, cloud.header, frame_id, config.points_transform)
        depth = sparse_depth(points.to(camera.K.device), camera)
        if not bool(torch.isfinite(depth).any()):
            got = f"got {len(points)}, none of them in its image"
            raise MessageError("reference_empty", f"expected points that the camera sees, {got}")
        return depth
