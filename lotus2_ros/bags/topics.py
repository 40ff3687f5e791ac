"""Which topics of a bag are used: one image topic, and what is measured for its camera."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lotus2_ros.bags.depth_images import is_depth
from lotus2_ros.bags.frames import COMPRESSED_IMAGE, IMAGE, ODOMETRY, POINT_CLOUD
from lotus2_ros.bags.reader import BagReader, absolute
from lotus2_ros.config.errors import InputError
from lotus2_ros.config.names import DEPTH_INPUT, ODOMETRY_INPUT, POINTS_INPUT
from lotus2_ros.inference.picture_header import DecodeError, read_header

DEPTH_TOPICS = DEPTH_INPUT, f"{DEPTH_INPUT}/compressedDepth", f"{DEPTH_INPUT}/compressed"


@dataclass(frozen=True)
class BagTopics:
    """The topics that the user named, and what he said about them."""

    image: str | None = None
    reference: str | None = None
    camera_info: str | None = None
    odometry: str | None = None
    transforms: bool = False  # /tf is read even if no topic needs it
    rectified: str = "auto"  # whether the images are: yes, no, or auto by the name of their topic

    @property
    def needs_bag(self) -> bool:
        return any((self.image, self.reference, self.camera_info, self.odometry))


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


def choose_topic(path: Path, images: dict[str, Any], topic: str | None, reference: str | None = None) -> str:
    """The topic of color images: the one asked for, else the only one besides the ``reference``. Raises InputError."""
    color = sorted(name for name, first in images.items() if not is_depth(first))
    if topic is not None:
        if absolute(topic) not in color:
            got = f"depth ({encoding_of(images[absolute(topic)])})" if absolute(topic) in images else "no images"
            raise InputError(f"{path}: {got} on {topic}; image topics: {', '.join(color) or 'none'}")
        return absolute(topic)
    if not color:
        got = f", only depth on {', '.join(sorted(images))}" if images else ""
        raise InputError(
            f"{path}: no image topic (sensor_msgs Image or CompressedImage) with messages in this bag{got}"
        )
    if reference is not None and len(color) > 1:
        color = [name for name in color if name != absolute(reference)]
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
        return own_topic(DEPTH_TOPICS, image_topic, depth), own_topic((POINTS_INPUT,), image_topic, points)
    if absolute(topic) in points:
        return None, absolute(topic)
    if absolute(topic) not in depth:
        there = f"depth topics: {', '.join(depth) or 'none'}"
        if points:
            there += f"; topics of points: {', '.join(points)}"
        got = "" if absolute(topic) not in images else f", which has {encoding_of(images[absolute(topic)])}"
        raise InputError(f"{reader.path}: no depth images on {topic}{got}; {there}")
    return absolute(topic), None


def choose_odometry(reader: BagReader, image_topic: str, topic: str | None) -> str | None:
    """The topic of the robot's odometry: the one asked for, or that of the node's own name."""
    there = sorted(name for name, kind in reader.topics.items() if kind == ODOMETRY)
    if topic is None:
        return own_topic((ODOMETRY_INPUT,), image_topic, there)
    if absolute(topic) not in there:
        raise InputError(f"{reader.path}: no odometry on {topic}; odometry topics: {', '.join(there) or 'none'}")
    return absolute(topic)


def own_topic(names: Sequence[str], image_topic: str, there: Collection[str]) -> str | None:
    """A topic of one of the node's own names: the camera's, such as /front/odometry for /front/image, or one for
    all."""
    namespace = image_topic
    while namespace:
        namespace = namespace.rpartition("/")[0]
        for name in names:
            if f"{namespace}/{name}" in there:
                return f"{namespace}/{name}"
    return None


def encoding_of(image: Any) -> str:
    return repr(image.format if hasattr(image, "format") else image.encoding)


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
