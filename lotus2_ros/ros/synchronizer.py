"""Subscriptions, and images paired with their camera_info."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from lotus2_ros.config import Config, InputConfig
from lotus2_ros.geometry.calibration import is_rectified
from lotus2_ros.ros.diagnostics import Diagnostics
from lotus2_ros.ros.messages import stamp_seconds
from lotus2_ros.ros.references import References

REMEMBERED_INFOS = 30


@dataclass(frozen=True)
class CameraFrame:
    """An image with its calibration; ``info`` is None only if the node was told a field of view instead."""

    image: Image | CompressedImage
    info: CameraInfo | None
    arrived: float  # time.perf_counter()


class Synchronizer:
    """Pairs images with camera_info by stamp, in whichever order the two arrive."""

    def __init__(
        self, config: Callable[[], Config], deliver: Callable[[CameraFrame], None], health: Diagnostics
    ) -> None:
        self._config = config
        self._deliver = deliver
        self._health = health
        self._infos: OrderedDict[float, CameraInfo] = OrderedDict()
        self._waiting: CameraFrame | None = None

    def image(self, message: Image | CompressedImage) -> None:
        self._health.image_received()
        frame = CameraFrame(message, self._info_of(message), time.perf_counter())
        if frame.info is not None:
            self._deliver(frame)
            return
        if not self._infos and self._config().input.fov > 0:
            self._deliver(frame)
            return
        if self._waiting is not None:
            self._reject_waiting(self._waiting)
        self._waiting = frame

    def info(self, message: CameraInfo) -> None:
        self._infos[stamp_seconds(message.header)] = message
        while len(self._infos) > REMEMBERED_INFOS:
            self._infos.popitem(last=False)
        if self._waiting is None:
            return
        info = self._info_of(self._waiting.image)
        if info is not None:
            frame, self._waiting = self._waiting, None
            self._deliver(CameraFrame(frame.image, info, frame.arrived))

    def _info_of(self, image: Image | CompressedImage) -> CameraInfo | None:
        stamp = stamp_seconds(image.header)
        exact = self._infos.get(stamp)
        slop = self._config().input.sync_slop
        if exact is not None or not self._infos or slop == 0:
            return exact
        nearest = min(self._infos, key=lambda other: abs(other - stamp))
        return self._infos[nearest] if abs(nearest - stamp) <= slop else None

    def _reject_waiting(self, frame: CameraFrame) -> None:
        stamp = stamp_seconds(frame.image.header)
        if not self._infos:
            text = "expected a camera_info with each image, got none; set input.fov to go without"
        else:
            nearest = min((other - stamp for other in self._infos), key=abs)
            text = (
                f"expected a camera_info within {self._config().input.sync_slop:g} s of the image's stamp {stamp:.6f}, "
                f"the nearest is {nearest:+.6f} s off; see input.sync_slop"
            )
        self._health.reject("camera_info_missing", text)


def image_is_rectified(node: LifecycleNode, config: InputConfig) -> bool:
    """Whether images come without lens distortion: as ``config.rectified`` says, or the name of their topic."""
    if config.rectified == "auto":
        return is_rectified(node.resolve_topic_name(image_topic(config)))
    return config.rectified == "yes"


def image_topic(config: InputConfig) -> str:
    return "image/compressed" if config.image_transport == "compressed" else "image"


def subscribe(node: LifecycleNode, config: Config, pairing: Synchronizer, references: References) -> list:
    """All subscriptions of an active node. Sensor-data QoS, so that any publisher matches; overridable."""
    image_type = CompressedImage if config.input.image_transport == "compressed" else Image
    # The executor serves those that are ready in this order: what belongs to an image is known before it.
    wanted = [
        (Image, "reference/depth", references.depth, _sensor_data(1)),
        (PointCloud2, "reference/points", references.points, _sensor_data(1)),
        (CameraInfo, "camera_info", pairing.info, _sensor_data(REMEMBERED_INFOS)),
        (image_type, image_topic(config.input), pairing.image, _sensor_data(1)),
    ]
    options = QoSOverridingOptions.with_default_policies()
    return [
        node.create_subscription(kind, topic, callback, qos, qos_overriding_options=options)
        for kind, topic, callback, qos in wanted
    ]


def _sensor_data(depth: int) -> QoSProfile:
    # A new one for each topic: rclpy writes a topic's overrides into the profile that it is given.
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)
