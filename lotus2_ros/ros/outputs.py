"""Publishers: a topic's message is made only while someone subscribes to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import NamedTuple

from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from lotus2_ros.config import CloudConfig
from lotus2_ros.estimator import Geometry
from lotus2_ros.geometry.depth import limit_depth
from lotus2_ros.geometry.normals import normals_to_color
from lotus2_ros.msg import FrameReport
from lotus2_ros.ros.messages import tensor_to_image, tensors_to_cloud


class Topic(NamedTuple):
    """What is published: the message type, the task that it needs, and a description."""

    kind: type
    task: str
    help: str


# Below ~/ for the core predictor's results, below ~/sharp/ for the sharpener's.
TOPICS = {
    "depth/image": Topic(Image, "depth", "32FC1, metres along z; only while the scale is metric"),
    "depth/camera_info": Topic(CameraInfo, "depth", "of the depth image"),
    "points": Topic(PointCloud2, "depth", "organized, x y z rgb, metres; only while the scale is metric"),
    "relative/depth/image": Topic(Image, "depth", "32FC1, up to a factor and a guessed shift; while nothing is metric"),
    "relative/points": Topic(PointCloud2, "depth", "the same as a cloud"),
    "disparity/image": Topic(Image, "depth", "32FC1 in [0, 1], 1 = near: what the model says, affine-invariant"),
    "normals/image": Topic(Image, "normals", "32FC3, unit vectors in the optical frame, toward the camera"),
    "normals/color": Topic(Image, "normals", "rgb8, a picture of them"),
}
REMEMBERED_REPORTS = 10
PREFIXES = {"core": "~/", "sharpener": "~/sharp/"}


class Outputs:
    """All publishers of a configured node, and what each of them sends of a geometry."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._publishers: dict[tuple[str, str], LifecyclePublisher] = {
            (stage, topic): self._create(kind, prefix + topic)
            for stage, prefix in PREFIXES.items()
            for topic, (kind, _, _) in TOPICS.items()
        }
        # Reports are small, and a frame's should not be lost because the next one's came soon after.
        self.report = self._create(FrameReport, "~/report", depth=REMEMBERED_REPORTS)

    def _create(self, kind: type, topic: str, depth: int = 1) -> LifecyclePublisher:
        # Reliable, so that every subscriber matches; depth 1, because only the newest frame is worth sending. A profile
        # for each topic: rclpy writes a topic's overrides into the one that it is given.
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE)
        options = QoSOverridingOptions.with_default_policies()
        return self._node.create_lifecycle_publisher(kind, topic, qos, qos_overriding_options=options)

    def destroy(self) -> None:
        for publisher in (*self._publishers.values(), self.report):
            self._node.destroy_lifecycle_publisher(publisher)

    def tasks(self, stage: str) -> set[str]:
        """The tasks that someone subscribes to a result of, at this stage."""
        return {task for topic, (_, task, _) in TOPICS.items() if self._wanted(stage, topic)}

    def publish(self, geometry: Geometry, info: CameraInfo | None, header: Header, cloud: CloudConfig) -> None:
        """Send what is subscribed to, with the stamp and frame of the input image: ``header``."""
        stage = geometry.stage
        for topic, message in messages_of(geometry, info, header, cloud, lambda topic: self._wanted(stage, topic)):
            self._publishers[stage, topic].publish(message)

    def _wanted(self, stage: str, topic: str) -> bool:
        return self._publishers[stage, topic].get_subscription_count() > 0


def messages_of(
    geometry: Geometry, info: CameraInfo | None, header: Header, cloud: CloudConfig, wanted: Callable[[str], bool]
) -> Iterator[tuple[str, Image | CameraInfo | PointCloud2]]:
    """The topics of TOPICS that a geometry has something for and that are wanted, with their messages."""
    prefix = "" if geometry.scale.metric else "relative/"
    for topic, image in ((prefix + "depth/image", geometry.depth), ("disparity/image", geometry.disparity)):
        if image is not None and wanted(topic):
            yield topic, tensor_to_image(image, "32FC1", header)
    if geometry.scale.metric and info is not None and wanted("depth/camera_info"):
        sibling = deepcopy(info)
        sibling.header = header
        yield "depth/camera_info", sibling
    if geometry.normals is not None:
        if wanted("normals/image"):
            yield "normals/image", tensor_to_image(geometry.normals, "32FC3", header)
        if wanted("normals/color"):
            yield "normals/color", tensor_to_image(normals_to_color(geometry.normals), "rgb8", header)
    if geometry.depth is not None and geometry.camera is not None and wanted(prefix + "points"):
        points = geometry.camera.unproject(limit_depth(geometry.depth, cloud.max_depth))
        normals = geometry.normals if cloud.normals else None
        yield prefix + "points", tensors_to_cloud(points, geometry.image, normals, header)
