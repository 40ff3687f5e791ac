"""Bags of ROS 2 (mcap, sqlite3) and ROS 1."""

from __future__ import annotations

import sqlite3
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.rosbag1 import ReaderError as Ros1Error
from rosbags.rosbag2 import ReaderError as Ros2Error
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_typestore

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from lotus2_ros.bags.files import assumed_camera, camera_statement
from lotus2_ros.bags.frames import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    RecordedFrame,
    Recording,
    camera_info_message,
    header,
    message,
    stamp_ns,
    typestore,
)
from lotus2_ros.geometry.calibration import is_rectified
from lotus2_ros.inference.inputs import InputError

# What rosbags raises on truncated and foreign files: its own errors, and some of what it is built on.
BROKEN = (
    *(AnyReaderError, Ros1Error, Ros2Error, SerdeError, TypesysError),
    *(AssertionError, UnicodeDecodeError, struct.error, sqlite3.Error, zstd.ZstdError),
)
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
DEPTH_ENCODINGS = ("32FC1", "16UC1")
REFERENCE_TOPIC = "/reference/depth"


def open_bag(path: Path, topic: str | None, reference_topic: str | None, fov: float | None) -> Recording:
    """One image topic of a bag, with the CameraInfo beside it and, if there is one, a topic of reference depth."""
    with open_reader(path) as reader:
        images = image_topics(reader)
        topic = choose_topic(path, images, topic)
        reference_topic = choose_reference(path, images, reference_topic)
        size = image_size(first_message(reader, topic))
        infos = camera_infos(reader, topic)
    if infos and (infos[0].width, infos[0].height) != size:
        camera = f"{camera_statement(fov)}; the bag's CameraInfo is for {infos[0].width} x {infos[0].height} images, "
        camera += f"these are {size[0]} x {size[1]}"
        infos = []
    elif infos and fov is None:
        camera = "CameraInfo of the bag"
    else:
        camera, infos = camera_statement(fov), []

    def frames() -> Iterator[RecordedFrame]:
        with open_reader(path) as reader:
            wanted = [c for c in reader.connections if absolute(c.topic) in (topic, reference_topic)]
            reference = None
            for connection, time_ns, raw in reader.messages(wanted):
                item = decode(reader, raw, connection.msgtype)
                if absolute(connection.topic) == reference_topic:
                    reference = item
                    continue
                stamp = stamp_ns(item) or time_ns
                info = nearest(infos, stamp) or guess_camera_info(item, fov)
                info = rectified_info(info) if is_rectified(topic) else info
                yield RecordedFrame(
                    stamp, restamped(item, stamp), restamped(info, stamp, item.header.frame_id), reference
                )
                reference = None

    return Recording(f"{path}, {topic}", camera, frames)


@contextmanager
def open_reader(path: Path) -> Iterator[AnyReader]:
    """The one place where a broken bag becomes one clear line."""
    try:
        with AnyReader([path], default_typestore=typestore()) as reader:
            yield reader
    except BROKEN as error:
        raise InputError(f"{path}: not a bag that can be read ({str(error) or type(error).__name__})") from None


def absolute(topic: str) -> str:
    return "/" + topic.lstrip("/")


def kind(msgtype: str) -> str:
    """``sensor_msgs/Image`` (ROS 1, and some recorders) and ``sensor_msgs/msg/Image`` are the same type."""
    package, *_, name = msgtype.split("/")
    return f"{package}/msg/{name}"


def decode(reader: AnyReader, raw: bytes | memoryview, msgtype: str) -> Any:
    """A message of any bag as ROS 2 message: ROS 1 has a sequence number in the header and capital letters."""
    name = kind(msgtype)
    if reader.is2:
        # A single file of a bag that was compressed per message lacks the metadata.yaml that would say so.
        raw = zstd.decompress(raw) if bytes(raw[:4]) == ZSTD_MAGIC else raw
        return typestore().deserialize_cdr(raw, name)
    old: Any = get_typestore(Stores.ROS1_NOETIC).deserialize_ros1(raw, name)
    head = header(stamp_ns(old), old.header.frame_id)
    if name == CAMERA_INFO:
        roi = {key: getattr(old.roi, key) for key in ("x_offset", "y_offset", "height", "width", "do_rectify")}
        return message(
            name, header=head, height=old.height, width=old.width, distortion_model=old.distortion_model,
            d=old.D, k=old.K, r=old.R, p=old.P, binning_x=old.binning_x, binning_y=old.binning_y,
            roi=message("sensor_msgs/msg/RegionOfInterest", **roi),
        )  # fmt: skip
    fields = ("format", "data") if name == COMPRESSED_IMAGE else (
        "height", "width", "encoding", "is_bigendian", "step", "data",
    )  # fmt: skip
    return message(name, header=head, **{key: getattr(old, key) for key in fields})


def first_message(reader: AnyReader, topic: str) -> Any:
    connections = [c for c in reader.connections if absolute(c.topic) == topic]
    connection, _, raw = next(reader.messages(connections))
    return decode(reader, raw, connection.msgtype)


def image_topics(reader: AnyReader) -> dict[str, bool]:
    """Image topics that have messages, each with whether it is a depth image."""
    found = {}
    for connection in reader.connections:
        if kind(connection.msgtype) in (IMAGE, COMPRESSED_IMAGE) and connection.msgcount:
            first = first_message(reader, absolute(connection.topic))
            depth = "compressedDepth" in first.format if hasattr(first, "format") else first.encoding in DEPTH_ENCODINGS
            found[absolute(connection.topic)] = depth
    return found


def choose_topic(path: Path, images: dict[str, bool], topic: str | None) -> str:
    colour = sorted(name for name, depth in images.items() if not depth)
    if topic is not None:
        if absolute(topic) not in images:
            raise InputError(f"{path}: no images on {topic}; image topics: {', '.join(sorted(images)) or 'none'}")
        return absolute(topic)
    if not colour:
        raise InputError(f"{path}: no image topic (sensor_msgs Image or CompressedImage) with messages in this bag")
    if len(colour) > 1:
        raise InputError(f"{path}: {len(colour)} image topics, choose one with --topic: {', '.join(colour)}")
    return colour[0]


def choose_reference(path: Path, images: dict[str, bool], topic: str | None) -> str | None:
    depth = sorted(name for name, is_depth in images.items() if is_depth)
    if topic is not None and absolute(topic) not in depth:
        raise InputError(f"{path}: no depth images on {topic}; depth topics: {', '.join(depth) or 'none'}")
    wanted = absolute(topic or REFERENCE_TOPIC)
    return wanted if wanted in depth else None


def camera_infos(reader: AnyReader, image_topic: str) -> list[Any]:
    """All CameraInfo of the topic beside the image topic, or of the bag's only one; none where K says uncalibrated."""
    base = image_topic.removesuffix("/compressed").rpartition("/")[0]
    topics = {absolute(c.topic) for c in reader.connections if kind(c.msgtype) == CAMERA_INFO and c.msgcount}
    beside = f"{base}/camera_info"
    chosen = {beside} if beside in topics else topics if len(topics) == 1 else set()
    connections = [c for c in reader.connections if absolute(c.topic) in chosen]
    if not connections:
        return []
    infos = [decode(reader, raw, connection.msgtype) for connection, _, raw in reader.messages(connections)]
    return [info for info in infos if info.k[0] > 0]


def nearest(infos: list[Any], stamp: int) -> Any | None:
    """The CameraInfo nearest in time: a calibration hardly changes, and many recordings hold it with other stamps."""
    return min(infos, key=lambda info: abs(stamp_ns(info) - stamp), default=None)


def rectified_info(info: Any) -> Any:
    """The CameraInfo of a rectified image as one of a pinhole: its readers do not see the name of the image's topic."""
    if not any(info.p) and any(info.d):
        return info  # K is of the raw image: nothing says what the rectified one has
    k = info.p.reshape(3, 4)[:, :3].ravel() if any(info.p) else info.k
    # An equidistant lens is a fisheye even with coefficients of 0.
    return replace(info, k=k, d=np.zeros(5), distortion_model="plumb_bob")


def guess_camera_info(image: Any, fov: float | None) -> Any:
    return camera_info_message(assumed_camera(*image_size(image), fov), image.header)


def image_size(image: Any) -> tuple[int, int]:
    """Width and height."""
    if not hasattr(image, "format"):
        return image.width, image.height
    pixels = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise InputError(f"a {image.format or 'compressed'} image cannot be decoded")
    return pixels.shape[1], pixels.shape[0]


def restamped(item: Any, stamp: int, frame_id: str | None = None) -> Any:
    """The same message with this stamp (and frame_id)."""
    fields = {key: getattr(item, key) for key in item.__dataclass_fields__ if key not in ("header", "__msgtype__")}
    head = header(stamp, item.header.frame_id if frame_id is None else frame_id)
    return message(item.__msgtype__, header=head, **fields)
