"""Which topics the node subscribes to, by names, transports and remappings."""

from __future__ import annotations

import pytest
from rclpy.context import Context

from lotus2_ros.config import InputConfig
from lotus2_ros.ros.perception import PerceptionNode
from lotus2_ros.ros.subscriptions import image_is_rectified, odometry_topic, topic_of

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(
    ("remappings", "base", "transport", "expected"),
    [
        ([], "image", "raw", "/robot/image"),
        ([], "image", "compressed", "/robot/image/compressed"),
        (["image:=/camera/image_raw"], "image", "raw", "/camera/image_raw"),
        (["image:=/camera/image_raw"], "image", "compressed", "/camera/image_raw/compressed"),
        (["image:=/camera/image_raw/compressed"], "image", "compressed", "/camera/image_raw/compressed"),
        (["image/compressed:=/jpegs"], "image", "compressed", "/jpegs"),
        (["image/compressed:=/jpegs", "image:=/camera/image_raw"], "image", "compressed", "/jpegs"),
        (["reference/depth:=/d/image"], "reference/depth", "compressedDepth", "/d/image/compressedDepth"),
    ],
)
def test_topics_of_transports_follow_the_remapping_of_their_base(node_with, remappings, base, transport, expected):
    node = node_with(*remappings)
    assert node.resolve_topic_name(topic_of(node, base, transport)) == expected


@pytest.mark.parametrize(
    ("remappings", "expected"),
    [
        ([], ["/robot/odometry", "/robot/odometry"]),
        (["odometry:=/wheels"], ["/wheels", "/wheels"]),
        (["front/odometry:=/front/vio"], ["/front/vio", "/robot/odometry"]),
        (["front/odometry:=/front/vio", "odometry:=/wheels"], ["/front/vio", "/wheels"]),
    ],
)
def test_odometry_is_the_robots_unless_a_cameras_own_is_remapped(node_with, remappings, expected):
    node = node_with(*remappings)
    assert [node.resolve_topic_name(odometry_topic(node, camera)) for camera in ("front", "rear")] == expected


def test_the_node_names_the_topic_that_it_subscribes_to(domain):
    context = Context()
    context.init(args=["--ros-args", "-r", "image:=/camera/image_raw"], domain_id=domain)
    node = PerceptionNode(context=context)
    topics = [node.resolve_topic_name(topic) for topic in ("image", "image/compressed", "points")]
    assert topics == ["/camera/image_raw", "/camera/image_raw/compressed", "/points"]
    node.destroy_node()
    context.shutdown()


@pytest.mark.parametrize(
    ("choice", "topic", "rectified"),
    [
        ("auto", "/a/image_rect", True),
        ("auto", "/a/image_raw", False),
        ("yes", "/a/image_raw", True),
        ("no", "/a/image_rect", False),
    ],
)
@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_images_are_rectified_by_parameter_or_name(node_with, choice, topic, rectified, transport):
    config = InputConfig(image_transport=transport, rectified=choice)
    assert image_is_rectified(node_with(f"image:={topic}"), config) is rectified
