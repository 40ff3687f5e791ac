"""One camera of a bag: its images, each with its calibration and the measurements of its time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lotus2_ros.bags.calibrations import (
    CameraInfos,
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
from lotus2_ros.bags.pairing import LOOKAHEAD_NS, PairedImage, Recorded, pair
from lotus2_ros.bags.reader import BagReader, open_reader
from lotus2_ros.bags.topics import (
    BagTopics,
    choose_odometry,
    choose_references,
    choose_topic,
    image_size,
    image_topics,
)
from lotus2_ros.bags.transforms import TF_STATIC_TOPIC, TF_TOPIC
from lotus2_ros.config.errors import InputError
from lotus2_ros.geometry.calibration import Calibration, is_rectified
from lotus2_ros.geometry.camera import CameraError

LAST_STAMP_NS = 2**31 * 10**9 - 1  # builtin_interfaces/Time holds no later one
LOOKED_AT = 50  # messages of a topic, until one of them has a stamp


def open_bag(path: Path, wanted: BagTopics, fov: float | None, say: Say) -> Recording:
    """One image topic of a bag, with the camera_info that belongs to it and with what was measured besides."""
    with open_reader(path, say) as reader:
        images = image_topics(reader)
        topic = choose_topic(path, images, wanted.image, wanted.reference)
        rectified = is_rectified(topic, wanted.rectified)
        depth_topic, points_topic = choose_references(reader, images, topic, wanted.reference)
        odometry_topic = choose_odometry(reader, topic, wanted.odometry)
        first = images[topic]
        if fov is not None and wanted.camera_info is None:
            infos = CameraInfos()
        else:
            infos = find_camera_infos(reader, topic, wanted.camera_info, first, rectified)
        offsets = {name: stamp_offset(reader, name) for name in (topic, depth_topic, points_topic) if name}
        needs_transforms = bool(points_topic or odometry_topic or wanted.transforms)
        poses = [odometry_topic] if odometry_topic else []
        poses += [TF_TOPIC] if needs_transforms and TF_TOPIC in reader.topics else []
        count = reader.counts[topic]
    try:
        camera, infos = describe_camera(infos, first, topic, fov, rectified)
    except InputError as error:
        raise InputError(f"{path}, {topic}: {error}") from None
    camera_of = CameraOfImages(infos, fov, rectified)
    measured = frozenset(offsets) - {topic}

    def frames() -> Iterator[RecordedFrame]:
        with open_reader(path, say) as reader:
            static = decoded(reader, [TF_STATIC_TOPIC], offsets, say) if needs_transforms else ()
            transforms = [(item.message, True) for item in static]  # they hold before they were sent, too
            odometry: list[Any] = []
            items = decoded(reader, [*offsets, *poses], offsets, say)
            for paired in pair(items, topic, measured, LOOKAHEAD_NS if measured or poses else 0):
                transforms += [(item.message, False) for item in paired.others if item.topic == TF_TOPIC]
                odometry += [item.message for item in paired.others if item.topic == odometry_topic]
                image, stamp = paired.image.message, paired.image.stamp_ns
                try:
                    info = camera_of(image, stamp)
                except (InputError, CameraError) as error:
                    say(f"skipped: message on {topic} at {paired.image.time_ns} ns: {error}")
                    continue
                yield RecordedFrame(
                    stamp,
                    restamped(image, stamp),
                    info,
                    nearest_depth(paired, depth_topic, say),
                    paired.image.time_ns,
                    points=tuple(restamped(m.message, m.stamp_ns) for m in paired.measured if m.topic == points_topic),
                    transforms=tuple(transforms),
                    odometry=tuple(odometry),
                )
                transforms, odometry = [], []

    reference = " and ".join(filter(None, (depth_topic, points_topic, odometry_topic)))
    used = tuple(filter(None, (topic, infos.topic, depth_topic, points_topic)))
    return Recording(f"{path}, {topic}", camera, frames, reference, count, used)


def decoded(reader: BagReader, topics: list[str], offsets: dict[str, int], say: Say) -> Iterator[Recorded]:
    """The messages of these topics with stamps, depth images as such; a line for each that cannot be decoded."""
    for item in reader.messages(topics):
        try:
            message = reader.decode(item)
            if item.topic not in offsets:  # of transforms: each has stamps of its own
                yield Recorded(item.topic, message, item.time_ns, item.time_ns)
                continue
            stamp = min(stamp_ns(message) or max(1, item.time_ns + offsets[item.topic]), LAST_STAMP_NS)
            if item.kind in (IMAGE, COMPRESSED_IMAGE):
                message = as_depth_image(message) if is_depth(message) else message
            yield Recorded(item.topic, message, stamp, item.time_ns)
        except InputError as error:
            say(f"skipped: message on {item.topic} at {item.time_ns} ns: {error}")


@dataclass(frozen=True)
class CameraOfImages:
    """The camera_info of an image: of the bag, or guessed from its size."""

    infos: CameraInfos
    fov: float | None
    rectified: bool

    def __call__(self, image: Any, stamp: int) -> Any:
        """Raises InputError, CameraError."""
        info = self.infos.nearest(stamp) if self.infos.infos else guess_camera_info(image, self.fov)
        return restamped(rectified_info(info) if self.rectified else info, stamp, image.header.frame_id)


def nearest_depth(paired: PairedImage, topic: str | None, say: Say) -> Any:
    """The depth image nearest to an image, of the image's frame; None if there is none."""
    for item in paired.measured:
        if item.topic == topic:
            ours, other = paired.image.message.header.frame_id, item.message.header.frame_id
            if not ours or not other or ours == other:
                return restamped(item.message, item.stamp_ns)
            say(f"{topic}: not used, expected depth in the image's frame {ours!r}, got {other!r}")
    return None


def describe_camera(
    infos: CameraInfos, first: Any, topic: str, fov: float | None, rectified: bool
) -> tuple[str, CameraInfos]:
    """Where the calibration comes from, for people; and the calibrations, none if not one of them fits.

    Raises InputError if no image of the topic can be decoded.
    """
    width, height = image_size(first)
    problem = infos.problem
    if infos.infos:
        # A driver's first messages may be of another mode, or not ready.
        problems = [(info, misfit(info, width, height, rectified)) for info in infos.infos]
        info, problem = next((each for each in problems if not each[1]), problems[0])
        if not problem:
            where = "" if infos.topic == info_topics(topic)[-1] else f"on {infos.topic}"
            doubt = Calibration.of(info).doubt(rectified=rectified)
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


def guess_camera_info(image: Any, fov: float | None) -> Any:
    return camera_info_message(assumed_camera(*image_size(image), fov), image.header)


def restamped(item: Any, stamp: int, frame_id: str | None = None) -> Any:
    """The same message with this stamp (and frame_id)."""
    fields = {key: getattr(item, key) for key in item.__dataclass_fields__ if key not in ("header", "__msgtype__")}
    head = header(stamp, item.header.frame_id if frame_id is None else frame_id)
    return message(item.__msgtype__, header=head, **fields)
