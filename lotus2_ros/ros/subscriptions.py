"""The subscriptions of one camera: which topics, by their names and remappings, and with which QoS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from lotus2_ros.config import Config, InputConfig
from lotus2_ros.config.live import ONLY_CAMERA
from lotus2_ros.config.names import DEPTH_INPUT, IMAGE_INPUT, INFO_INPUT, ODOMETRY_INPUT, POINTS_INPUT
from lotus2_ros.geometry.calibration import is_rectified
from lotus2_ros.ros.synchronizer import INFO_QUEUE

TRANSPORTS = ("compressed", "compressedDepth")  # besides raw
ODOMETRY_QUEUE = 50


def input_topic(name: str, camera: str) -> str:
    """The topic of an input, before remapping: `image`, or `front/image` of the camera ``front``."""
    return f"{camera}/{name}" if camera else name


def image_is_rectified(node: Node, config: InputConfig, camera: str = ONLY_CAMERA) -> bool:
    """Whether images are undistorted: as ``config.rectified`` says, or by the name of their topic."""
    topic = topic_of(node, input_topic(IMAGE_INPUT, camera), config.image_transport)
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
    own = input_topic(ODOMETRY_INPUT, camera)
    return own if _is_remapped(node, own) else ODOMETRY_INPUT


def _is_remapped(node: Node, topic: str) -> bool:
    return Node.resolve_topic_name(node, topic) != node.resolve_topic_name(topic, only_expand=True)


def subscribe(
    node: Node, config: Config, callbacks: Mapping[str, Callable[[Any], None]], camera: str = ONLY_CAMERA
) -> dict[str, Subscription]:
    """The subscriptions of one camera to the inputs that ``callbacks`` has, by the input's name.

    Sensor-data QoS, so that any publisher matches; overridable. A camera with a name has its topics below that.
    """
    options = QoSOverridingOptions.with_default_policies()
    subscriptions = {}
    for name, (kind, topic, depth) in _inputs(node, config.input, camera).items():
        if name in callbacks:
            # A new profile for each topic: rclpy writes a topic's overrides into the one that it is given.
            qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)
            subscriptions[name] = node.create_subscription(
                kind, topic, callbacks[name], qos, qos_overriding_options=options
            )
    return subscriptions


def _inputs(node: Node, config: InputConfig, camera: str) -> dict[str, tuple[Any, str, int]]:
    """Type, topic and queue depth of each input. The executor serves the ready subscriptions in this order: whatever
    belongs to an image should be there before it."""

    def picture(name: str, transport: str) -> tuple[Any, str, int]:
        kind = Image if transport == "raw" else CompressedImage
        return kind, topic_of(node, input_topic(name, camera), transport), 1

    inputs: dict[str, tuple[Any, str, int]] = {
        DEPTH_INPUT: picture(DEPTH_INPUT, config.reference_transport),
        POINTS_INPUT: (PointCloud2, input_topic(POINTS_INPUT, camera), 1),
    }
    with suppress(ImportError):  # the wheels of ROS have it in a package of its own, ros-nav-msgs
        from nav_msgs.msg import Odometry

        inputs[ODOMETRY_INPUT] = Odometry, odometry_topic(node, camera), ODOMETRY_QUEUE
    inputs[INFO_INPUT] = CameraInfo, input_topic(INFO_INPUT, camera), INFO_QUEUE
    inputs[IMAGE_INPUT] = picture(IMAGE_INPUT, config.image_transport)
    return inputs


def take_all(subscription: Any) -> Iterator[Any]:
    """The messages of a subscription that have arrived.

    The executor takes one per turn. On a busy machine camera_info would pile up behind images of which only the newest
    is kept, until it is overwritten itself.
    """
    with subscription.handle:
        while (taken := subscription.handle.take_message(subscription.msg_type, subscription.raw)) is not None:
            yield taken[0]
