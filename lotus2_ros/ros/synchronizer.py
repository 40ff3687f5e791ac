"""The subscriptions of the node, and the synchronizer of images and camera_info."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from torch import Tensor

from lotus2_ros.config import Config, InputConfig
from lotus2_ros.config.live import ONLY_CAMERA, LiveConfig
from lotus2_ros.geometry.calibration import Calibration, is_rectified
from lotus2_ros.ros.diagnostics import Diagnostics
from lotus2_ros.ros.messages import stamp_nanoseconds

IMAGE_QUEUE = 10  # as image_transport's CameraSubscriber has it
TRANSPORTS = ("compressed", "compressedDepth")  # besides raw
ODOMETRY_QUEUE = 50
INFO_QUEUE = 30  # they are small, and a callback may find many of them at once


@dataclass(frozen=True)
class CameraFrame:
    """An image with its calibration; ``info`` is None only if ``input.fov`` stands in for it.

    ``pixels``: a compressed image, decoded to (H, W, 3) uint8 RGB.
    """

    image: Image | CompressedImage
    info: CameraInfo | None
    arrived: float  # time.perf_counter()
    pixels: Tensor | None = None


class Synchronizer:
    """Matches each image with the camera_info of its stamp, in whichever order the two arrive.

    ``deliver`` gets every frame at once when both are there, and never an older image after a newer one. An image waits
    for its camera_info until IMAGE_QUEUE newer images have come.
    """

    def __init__(
        self,
        config: LiveConfig,
        deliver: Callable[[CameraFrame], None],
        diagnostics: Diagnostics,
        *,
        rectified: bool = False,
    ) -> None:
        self.dropped = 0  # frames whose camera_info came after that of a newer image
        # The camera_info that have arrived already and wait for the executor.
        self.take_infos: Callable[[], Iterable[CameraInfo]] = tuple
        self._config = config
        self._deliver = deliver
        self._diagnostics = diagnostics
        self._rectified = rectified
        self._infos: OrderedDict[int, CameraInfo] = OrderedDict()  # by stamp, in order of arrival
        self._waiting: deque[tuple[int, CameraFrame]] = deque()  # images without camera_info, by number
        self._received = self._delivered = 0  # numbers of the newest image

    def image(self, message: Image | CompressedImage) -> None:
        for info in self.take_infos():
            self.info(info)
        self._diagnostics.image_received()
        self._received += 1
        frame = CameraFrame(message, self._find_info(message), time.perf_counter())
        if frame.info is not None or (not self._infos and self._config.current.input.fov > 0):
            self._delivered = self._received
            self._deliver(frame)
        else:
            self._waiting.append((self._received, frame))
        while self._waiting and self._waiting[0][0] <= self._received - IMAGE_QUEUE:
            self._reject(self._waiting.popleft()[1].image)

    def info(self, message: CameraInfo) -> None:
        uncalibrated = not Calibration.of(message).is_calibrated(rectified=self._rectified)
        if self._config.current.input.fov > 0 and uncalibrated:
            self._infos.clear()  # input.fov stands in for it
            return
        stamp = stamp_nanoseconds(message.header)
        self._infos[stamp] = message
        self._infos.move_to_end(stamp)
        if len(self._infos) > INFO_QUEUE:
            self._infos.popitem(last=False)
        waiting, self._waiting = self._waiting, deque()
        for number, frame in waiting:
            info = self._find_info(frame.image)
            if info is None:
                self._waiting.append((number, frame))
            else:
                self._deliver_in_order(number, replace(frame, info=info))

    def _deliver_in_order(self, number: int, frame: CameraFrame) -> None:
        if number < self._delivered:
            self.dropped += 1
            return
        self._delivered = number
        self._deliver(frame)

    def _find_info(self, image: Image | CompressedImage) -> CameraInfo | None:
        """The camera_info of the image's stamp, else the nearest within input.sync_slop."""
        stamp = stamp_nanoseconds(image.header)
        exact = self._infos.get(stamp)
        slop = self._config.current.input.sync_slop
        if exact is not None or not self._infos or slop == 0:
            return exact
        nearest = min(self._infos, key=lambda other: abs(other - stamp))
        return self._infos[nearest] if abs(nearest - stamp) <= slop * 1e9 else None

    def _reject(self, image: Image | CompressedImage) -> None:
        stamp = stamp_nanoseconds(image.header)
        if not self._infos:
            text = "expected a camera_info with each image, got none; publish it, or set input.fov to go without"
        else:
            nearest = min((other - stamp for other in self._infos), key=abs)
            text = (
                f"expected a camera_info within {self._config.current.input.sync_slop:g} s of the image's stamp "
                f"{stamp * 1e-9:.6f}, the nearest is {nearest * 1e-9:+.6f} s off; see input.sync_slop"
            )
        self._diagnostics.reject("camera_info_missing", text)


def input_topic(name: str, camera: str) -> str:
    """The topic of an input, before remapping: `image`, or `front/image` of the camera ``front``."""
    return f"{camera}/{name}" if camera else name


def image_is_rectified(node: Node, config: InputConfig, camera: str = ONLY_CAMERA) -> bool:
    """Whether images are undistorted: as ``config.rectified`` says, or by the name of their topic."""
    topic = topic_of(node, input_topic("image", camera), config.image_transport)
    return is_rectified(node.resolve_topic_name(topic), config.rectified)


def topic_of(node: Node, base: str, transport: str) -> str:
    """The topic of an image transport: ``<base>/<transport>`` below the name that ``base`` is remapped to.

    This is image_transport's rule. A remapping of ``<base>/<transport>`` itself goes first.
    """
    if transport == "raw":
        return base
    own = f"{base}/{transport}"
    if _is_remapped(node, own):
        return own
    return f"{Node.resolve_topic_name(node, base).removesuffix(f'/{transport}')}/{transport}"


def odometry_topic(node: Node, camera: str) -> str:
    """The robot's `odometry`, which all cameras share; `front/odometry` of a camera for which that is remapped."""
    own = input_topic("odometry", camera)
    return own if _is_remapped(node, own) else "odometry"


def _is_remapped(node: Node, topic: str) -> bool:
    return Node.resolve_topic_name(node, topic) != node.resolve_topic_name(topic, only_expand=True)


def subscribe(
    node: Node, config: Config, callbacks: Mapping[str, Callable[[Any], None]], camera: str = ONLY_CAMERA
) -> dict[str, Subscription]:
    """All subscriptions of one camera, by the input that each serves; ``callbacks`` by input too.

    Sensor-data QoS, so that any publisher matches; overridable. A camera with a name has its topics below that.
    """
    image_transport, reference_transport = config.input.image_transport, config.input.reference_transport
    # Kind of message, or the transport of images; name of the input; depth of its queue. The executor serves the ready
    # ones in this order: whatever belongs to an image should be there before it.
    wanted: list[tuple[Any, str, int]] = [
        (reference_transport, "reference/depth", 1),
        (PointCloud2, "reference/points", 1),
        *_odometry(),
        (CameraInfo, "camera_info", INFO_QUEUE),
        (image_transport, "image", 1),
    ]
    options = QoSOverridingOptions.with_default_policies()
    subscriptions = {}
    for kind, name, depth in wanted:
        if name not in callbacks:
            continue
        topic = odometry_topic(node, camera) if name == "odometry" else input_topic(name, camera)
        if isinstance(kind, str):
            topic, kind = topic_of(node, topic, kind), Image if kind == "raw" else CompressedImage
        # A new profile for each topic: rclpy writes a topic's overrides into the one that it is given.
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)
        subscriptions[name] = node.create_subscription(
            kind, topic, callbacks[name], qos, qos_overriding_options=options
        )
    return subscriptions


def _odometry() -> list[tuple[Any, str, int]]:
    """The subscription of odometry, where its message is installed."""
    try:
        from nav_msgs.msg import Odometry
    except ImportError:  # the wheels of ROS have it in a package of its own, ros-nav-msgs
        return []
    return [(Odometry, "odometry", ODOMETRY_QUEUE)]


def take_all(subscription: Any) -> Iterator[Any]:
    """The messages of a subscription that have arrived.

    The executor takes one per turn. On a busy machine camera_info would pile up behind images of which only the newest
    is kept, until it is overwritten itself.
    """
    with subscription.handle:
        while (taken := subscription.handle.take_message(subscription.msg_type, subscription.raw)) is not None:
            yield taken[0]
