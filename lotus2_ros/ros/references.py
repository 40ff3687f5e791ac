"""Measured depth from other sensors, kept until a frame of its time comes."""

from __future__ import annotations

import threading
from collections import deque

from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lotus2_ros.config import ScaleConfig
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.reference import Reference
from lotus2_ros.ros.diagnostics import Health
from lotus2_ros.ros.messages import MessageError, depth_to_tensor, stamp_seconds

REMEMBERED = 10


class References:
    """The newest references by stamp. Filled by the node's thread, read by the model's."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._newest: deque[Reference] = deque(maxlen=REMEMBERED)
        self._lock = threading.Lock()

    def depth(self, message: Image) -> None:
        try:
            reference = Reference(depth_to_tensor(message), stamp_seconds(message.header))
        except MessageError as error:
            reason = "reference_" + error.reason.removeprefix("image_")
            self._health.reject(reason, f"reference/depth: {error}", frame=False)
            return
        with self._lock:
            self._newest.append(reference)

    def for_frame(self, header: Header, camera: Camera | None, config: ScaleConfig) -> Reference | None:
        """The reference nearest in time to a frame of ``header``, if it is within ``config.reference_slop``."""
        stamp = stamp_seconds(header)
        with self._lock:
            best = min(self._newest, key=lambda reference: abs(reference.stamp - stamp), default=None)
        return best if best is not None and abs(best.stamp - stamp) <= config.reference_slop else None
