"""Publishers: a topic's message is made only while someone subscribes to it.

In two parts, for two threads: the model's makes the *contents* of the topics, tensors on its device; another makes
messages of them, once they are on the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import NamedTuple

from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
from torch import Tensor

from lotus2_ros.config import CloudConfig
from lotus2_ros.geometry.cloud import organized_cloud
from lotus2_ros.geometry.normals import normals_to_color
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.msg import FrameReport
from lotus2_ros.ros.clouds import tensor_to_cloud
from lotus2_ros.ros.messages import tensor_to_image


class Topic(NamedTuple):
    """What is published: the message type, the task that it needs, a description, and the encoding of an image."""

    kind: type
    task: str
    about: str
    encoding: str = ""

    @property
    def help(self) -> str:
        return f"{self.encoding}, {self.about}" if self.encoding else self.about


FILTERED = "filtered/points"
# Below ~/ for the core predictor's results, below ~/sharp/ for the sharpener's.
TOPICS = {
    "depth/image": Topic(Image, "depth", "metres along z; only while the scale is metric", "32FC1"),
    "depth/camera_info": Topic(CameraInfo, "depth", "of the depth image"),
    "points": Topic(PointCloud2, "depth", "organized, x y z rgb, metres; only while the scale is metric"),
    "relative/depth/image": Topic(Image, "depth", "depth up to one factor; while nothing is metric", "32FC1"),
    "relative/points": Topic(PointCloud2, "depth", "the same as a cloud"),
    FILTERED: Topic(PointCloud2, "depth", "`points` thinned to voxels and without outliers, at its own period"),
    "disparity/image": Topic(Image, "depth", "what the model says: 1 = near, 0 = far, affine-invariant", "32FC1"),
    "uncertainty/image": Topic(
        Image, "depth", "standard deviation of the disparity over samples, or mirrored with `model.mirror`", "32FC1"
    ),
    "normals/image": Topic(Image, "normals", "unit vectors in the optical frame, toward the camera", "32FC3"),
    "normals/color": Topic(Image, "normals", "a picture of them", "rgb8"),
}
# By topic what its message needs: tensors, or the camera_info of the image.
Contents = dict[str, Tensor | CameraInfo]
REMEMBERED_REPORTS = 10
PREFIXES = {"core": "~/", "sharpener": "~/sharp/"}


class Publishers:
    """All publishers of a configured node, and what each of them sends of a geometry."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._publishers: dict[tuple[str, str], LifecyclePublisher] = {
            (stage, topic): self._create(kind, prefix + topic)
            for stage, prefix in PREFIXES.items()
            for topic, (kind, *_) in TOPICS.items()
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
        return {topic.task for name, topic in TOPICS.items() if self._wanted(stage, name)}

    def contents(
        self, geometry: Geometry, info: CameraInfo | None, cloud: CloudConfig, is_filter_due: bool
    ) -> Contents:
        """What the topics that are subscribed to say of a geometry, as :func:`contents_of` gives it."""

        def wanted(topic: str) -> bool:
            return self._wanted(geometry.stage, topic) and (topic != FILTERED or is_filter_due)

        return contents_of(geometry, info, cloud, wanted)

    def publish(self, stage: str, contents: Contents, header: Header) -> None:
        """Send contents, with the stamp and frame of the input image: ``header``."""
        for topic, content in contents.items():
            self._publishers[stage, topic].publish(message_of(topic, content, header))

    def publish_filtered(self, stage: str, cloud: PointCloud2) -> None:
        """Send a filtered cloud; in the thread that filters them."""
        self._publishers[stage, FILTERED].publish(cloud)

    def _wanted(self, stage: str, topic: str) -> bool:
        return self._publishers[stage, topic].get_subscription_count() > 0


def messages_of(
    geometry: Geometry, info: CameraInfo | None, header: Header, cloud: CloudConfig, wanted: Callable[[str], bool]
) -> Iterator[tuple[str, Image | CameraInfo | PointCloud2]]:
    """The topics of TOPICS that a geometry has something for and that are wanted, but FILTERED, with their messages."""
    for topic, content in contents_of(geometry, info, cloud, lambda topic: topic != FILTERED and wanted(topic)).items():
        yield topic, message_of(topic, content, header)


def contents_of(
    geometry: Geometry, info: CameraInfo | None, cloud: CloudConfig, wanted: Callable[[str], bool]
) -> Contents:
    """What the wanted topics say of a geometry: tensors on its device, contiguous; the camera_info as it came.

    For FILTERED that is the cloud that is yet to be filtered.
    """
    contents: Contents = {}
    prefix = "" if geometry.scale.metric else "relative/"
    depth, disparity, normals = geometry.depth, geometry.disparity, geometry.normals
    if depth is not None and wanted(prefix + "depth/image"):
        contents[prefix + "depth/image"] = depth.contiguous()
    if disparity is not None and wanted("disparity/image"):
        contents["disparity/image"] = disparity.contiguous()
    if geometry.uncertainty is not None and wanted("uncertainty/image"):
        contents["uncertainty/image"] = geometry.uncertainty.contiguous()
    if geometry.scale.metric and info is not None and wanted("depth/camera_info"):
        contents["depth/camera_info"] = info
    if normals is not None and wanted("normals/image"):
        contents["normals/image"] = normals.contiguous()
    if normals is not None and wanted("normals/color"):
        contents["normals/color"] = normals_to_color(normals).contiguous()
    clouds = [prefix + "points", FILTERED] if geometry.scale.metric else [prefix + "points"]
    clouds = [topic for topic in clouds if wanted(topic)]
    if clouds and depth is not None and geometry.camera is not None:
        shown = normals if cloud.normals else None
        rows = organized_cloud(
            depth,
            geometry.camera,
            geometry.image,
            shown,
            stride=cloud.stride,
            min_depth=cloud.min_depth,
            max_depth=cloud.max_depth or math.inf,
            edge_threshold=cloud.edge_threshold,
        )
        contents.update(dict.fromkeys(clouds, rows))
    return contents


def message_of(topic: str, content: Tensor | CameraInfo, header: Header) -> Image | CameraInfo | PointCloud2:
    """The message of a topic's content. It has its own memory: the content's may be used anew."""
    if not isinstance(content, Tensor):
        sibling = deepcopy(content)
        sibling.header = header
        return sibling
    if TOPICS[topic].kind is PointCloud2:
        return tensor_to_cloud(content, header)
    return tensor_to_image(content, TOPICS[topic].encoding, header)
