"""The publishers of a camera. A message is computed only while someone subscribes to its topic."""

from __future__ import annotations

from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from lotus2_ros.config import CloudConfig
from lotus2_ros.config.live import ONLY_CAMERA
from lotus2_ros.msg import FrameReport
from lotus2_ros.ros.topics import FILTERED, PREFIXES, SIGMA, TOPICS, Payload, message_of

REMEMBERED_REPORTS = 10


class Publishers:
    """All publishers of one camera of a configured node; ``camera`` is the first part of their topics below ~/."""

    def __init__(self, node: LifecycleNode, camera: str = ONLY_CAMERA) -> None:
        self._node = node
        below = f"~/{camera}/" if camera else "~/"
        self._publishers: dict[tuple[str, str], LifecyclePublisher] = {
            (stage, name): self._create(topic.kind, below + prefix + name)
            for stage, prefix in PREFIXES.items()
            for name, topic in TOPICS.items()
        }
        # Reports are small, and none should be lost because the next frame followed soon.
        self.report = self._create(FrameReport, f"{below}report", depth=REMEMBERED_REPORTS)

    def _create(self, kind: type, topic: str, depth: int = 1) -> LifecyclePublisher:
        # Reliable, so that every subscriber matches. Depth 1, because only the newest frame is worth sending. A new
        # profile for each topic, because rclpy writes a topic's overrides into the profile it is given.
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE)
        options = QoSOverridingOptions.with_default_policies()
        return self._node.create_lifecycle_publisher(kind, topic, qos, qos_overriding_options=options)

    def destroy(self) -> None:
        for publisher in (*self._publishers.values(), self.report):
            self._node.destroy_lifecycle_publisher(publisher)

    def is_wanted(self, stage: str, name: str) -> bool:
        """Whether someone subscribes to the topic of this stage."""
        return self._publishers[stage, name].get_subscription_count() > 0

    def tasks(self, stage: str) -> set[str]:
        """The tasks whose results someone subscribes to at this stage."""
        return {topic.task for name, topic in TOPICS.items() if self.is_wanted(stage, name)}

    def wants_sigma(self, cloud: CloudConfig) -> bool:
        """Whether a subscriber or a parameter needs the standard deviation of depth."""
        return cloud.needs_sigma or any(self.is_wanted(stage, SIGMA) for stage in PREFIXES)

    def publish(self, stage: str, payloads: dict[str, Payload], header: Header) -> None:
        """Publish payloads with ``header``, the stamp and frame of the input image."""
        for name, payload in payloads.items():
            self._publishers[stage, name].publish(message_of(name, payload, header))

    def publish_filtered(self, stage: str, cloud: PointCloud2) -> None:
        """Publish a filtered cloud; called in the filter thread."""
        self._publishers[stage, FILTERED].publish(cloud)
