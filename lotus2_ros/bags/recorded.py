"""One camera of a bag: its images, each with its calibration and its reference depth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lotus2_ros.bags.calibrations import (
    CameraInfos,
    calibration_of,
    find_camera_infos,
    info_topics,
    misfit,
    rectified_info,
)
from lotus2_ros.bags.depth_images import as_depth_image, is_depth
from lotus2_ros.bags.files import assumed_camera, camera_statement
from lotus2_ros.bags.frames import (
    COMPRESSED_IMAGE,
    IMAGE,
    RecordedFrame,
    Recording,
    Say,
    camera_info_message,
    header,
    message,
    stamp_ns,
)
from lotus2_ros.bags.reader import BagReader, absolute, open_reader
from lotus2_ros.geometry.calibration import is_rectified
from lotus2_ros.geometry.camera import CameraError
from lotus2_ros.inference.decoding import DecodeError, read_header
from lotus2_ros.inference.image_files import InputError

REFERENCE_TOPIC = "/reference/depth"
LAST_STAMP_NS = 2**31 * 10**9 - 1  # builtin_interfaces/Time holds no later one
LOOKED_AT = 50  # messages of a topic, until one of them has a stamp


@dataclass(frozen=True)
class BagTopics:
    """The topics that the user named."""

    image: str | None = None
    reference: str | None = None
    camera_info: str | None = None


def open_bag(path: Path, wanted: BagTopics, fov: float | None, say: Say) -> Recording:
    """One image topic of a bag, with the camera_info that belongs to it and, if there is one, reference depth."""
    with open_reader(path, say) as reader:
        images = image_topics(reader)
        topic = choose_topic(path, images, wanted.image)
        reference_topic = choose_reference(path, images, wanted.reference)
        first = images[topic]
        if fov is not None and wanted.camera_info is None:
            infos = CameraInfos()
        else:
            infos = find_camera_infos(reader, topic, wanted.camera_info, first)
        offsets = {name: stamp_offset(reader, name) for name in (topic, reference_topic) if name}
    camera, infos = describe_camera(infos, first, topic, fov)
    rectified = is_rectified(topic)

    def frames() -> Iterator[RecordedFrame]:
        with open_reader(path, say) as reader:
            reference = None
            for item in reader.messages(list(offsets)):
                try:
                    image = reader.decode(item)
                    stamp = stamp_ns(image) or min(max(1, item.time_ns + offsets[item.topic]), LAST_STAMP_NS)
                    if item.topic == reference_topic:
                        reference = restamped(as_depth_image(image), stamp)
                        continue
                    info = infos.nearest(stamp) if infos.infos else guess_camera_info(image, fov)
                except (InputError, CameraError) as error:
                    say(f"skipped: message on {item.topic} at {item.time_ns} ns: {error}")
                    continue
                if rectified:
                    info = rectified_info(info)
                if reference is not None and not same_frame(reference, image):
                    say(
                        f"{reference_topic}: not used, expected depth in the image's frame "
                        f"{image.header.frame_id!r}, got {reference.header.frame_id!r}"
                    )
                    reference = None
                info = restamped(info, stamp, image.header.frame_id)
                yield RecordedFrame(stamp, restamped(image, stamp), info, reference, item.time_ns)
                reference = None

    return Recording(f"{path}, {topic}", camera, frames, reference=reference_topic or "")


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


def choose_reference(path: Path, images: dict[str, Any], topic: str | None) -> str | None:
    depth = sorted(name for name, first in images.items() if is_depth(first))
    if topic is not None and absolute(topic) not in depth:
        raise InputError(f"{path}: no depth images on {topic}; depth topics: {', '.join(depth) or 'none'}")
    wanted = absolute(topic or REFERENCE_TOPIC)
    return wanted if wanted in depth else None


def describe_camera(infos: CameraInfos, first: Any, topic: str, fov: float | None) -> tuple[str, CameraInfos]:
    """Where the calibration comes from, for people; and the calibrations without those that do not fit.

    Raises InputError if no image of the topic can be decoded.
    """
    width, height = image_size(first)
    problem = infos.problem
    if infos.infos:
        info = infos.infos[0]
        problem = misfit(info, width, height, topic)
        if not problem:
            where = "" if infos.topic == info_topics(topic)[-1] else f"on {infos.topic}"
            doubt = calibration_of(info).doubt(rectified=is_rectified(topic))
            return ", ".join(filter(None, ["CameraInfo of the bag", where, doubt])), infos
        problem = f"{infos.topic} of {info.width} x {info.height} is not used for {width} x {height} images: {problem}"
    return "; ".join(filter(None, [camera_statement(fov), problem])), CameraInfos()


def stamp_offset(reader: BagReader, topic: str) -> int:
    """Nanoseconds from the time of recording to the stamps of a topic; 0 if it has no stamps.

    A stamp of zero is unset, and made up of the time of recording; under simulated time that may be decades away.
    """
    for item in islice(reader.messages([topic]), LOOKED_AT):
        try:
            stamp = stamp_ns(reader.decode(item))
        except InputError:
            continue
        if stamp:
            return stamp - item.time_ns
    return 0


def same_frame(reference: Any, image: Any) -> bool:
    ours, other = image.header.frame_id, reference.header.frame_id
    return not ours or not other or ours == other


def guess_camera_info(image: Any, fov: float | None) -> Any:
    return camera_info_message(assumed_camera(*image_size(image), fov), image.header)


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


def restamped(item: Any, stamp: int, frame_id: str | None = None) -> Any:
    """The same message with this stamp (and frame_id)."""
    fields = {key: getattr(item, key) for key in item.__dataclass_fields__ if key not in ("header", "__msgtype__")}
    head = header(stamp, item.header.frame_id if frame_id is None else frame_id)
    return message(item.__msgtype__, header=head, **fields)
