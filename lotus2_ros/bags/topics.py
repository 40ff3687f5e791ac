"""Which topics of a bag are used: one image topic, and what is measured for its camera."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lotus2_ros.bags.depth_images import is_depth
from lotus2_ros.bags.frames import COMPRESSED_IMAGE, IMAGE, ODOMETRY, POINT_CLOUD
from lotus2_ros.bags.reader import BagReader, absolute
from lotus2_ros.inference.decoding import DecodeError, read_header
from lotus2_ros.inference.image_files import InputError

# Of the node's inputs.
REFERENCE_TOPIC, POINTS_TOPIC, ODOMETRY_TOPIC = "reference/depth", "reference/points", "odometry"


@dataclass(frozen=True)
class BagTopics:
    """The topics that the user named."""

    image: str | None = None
    reference: str | None = None
    camera_info: str | None = None
    odometry: str | None = None
    transforms: bool = False  # /tf is read even if no topic needs it


def image_topics(reader: BagReader) -> dict[str, Any]:
    """Image topics that have messages, each with the first message that can be decoded, or any if none can be."""
    found: dict[str, Any] = {}
    for topic, kind in reader.topics.items():
        if kind not in (IMAGE, COMPRESSED_IMAGE):
            continue
        for item in reader.messages([topic]):
            try:
                first = reader.decode(item)
                found.setdefault(topic, first)
                if not is_depth(first):
                    image_size(first)
            except InputError:
                continue
            found[topic] = first
            break
    return found


def choose_topic(path: Path, images: dict[str, Any], topic: str | None) -> str:
    color = sorted(name for name, first in images.items() if not is_depth(first))
    if topic is not None:
        if absolute(topic) not in images:
            raise InputError(f"{path}: no images on {topic}; image topics: {', '.join(sorted(images)) or 'none'}")
        return absolute(topic)
    if not color:
        raise InputError(f"{path}: no image topic (sensor_msgs Image or CompressedImage) with messages in this bag")
    if len(color) > 1:
        raise InputError(f"{path}: {len(color)} image topics, choose one with --topic: {', '.join(color)}")
    return color[0]


def choose_references(
    reader: BagReader, images: dict[str, Any], image_topic: str, topic: str | None
) -> tuple[str | None, str | None]:
    """The topics of measured depth and of measured points: the one asked for, or those of the node's own names."""
    depth = sorted(name for name, first in images.items() if is_depth(first))
    points = sorted(name for name, kind in reader.topics.items() if kind == POINT_CLOUD)
    if topic is None:
        return own_topic(REFERENCE_TOPIC, image_topic, depth), own_topic(POINTS_TOPIC, image_topic, points)
    if absolute(topic) in points:
        return None, absolute(topic)
    if absolute(topic) not in depth:
        there = f"depth topics: {', '.join(depth) or 'none'}"
        if points:
            there += f"; topics of points: {', '.join(points)}"
        raise InputError(f"{reader.path}: no depth images on {topic}; {there}")
    return absolute(topic), None


def choose_odometry(reader: BagReader, image_topic: str, topic: str | None) -> str | None:
    """The topic of the robot's odometry: the one asked for, or that of the node's own name."""
    there = sorted(name for name, kind in reader.topics.items() if kind == ODOMETRY)
    if topic is None:
        return own_topic(ODOMETRY_TOPIC, image_topic, there)
    if absolute(topic) not in there:
        raise InputError(f"{reader.path}: no odometry on {topic}; odometry topics: {', '.join(there) or 'none'}")
    return absolute(topic)


def own_topic(name: str, image_topic: str, there: Collection[str]) -> str | None:
    """A topic of the node's own name: the camera's, such as /front/odometry for /front/image, or one for all."""
    namespace = image_topic
    while namespace:
        namespace = namespace.rpartition("/")[0]
        if f"{namespace}/{name}" in there:
            return f"{namespace}/{name}"
    return None


def image_size(image: Any) -> tuple[int, int]:
    """Width and height, of a compressed image by its header. Raises InputError."""
    if hasattr(image, "format"):
        try:
            _, width, height = read_header(bytes(image.data))
        except DecodeError as error:
            raise InputError(f"a {image.format or 'compressed'} image cannot be decoded: {error}") from None
    else:
        width, height = image.width, image.height
    if width <= 0 or height <= 0:
        raise InputError(f"expected an image of some size, got {width} x {height}")
    return width, height
