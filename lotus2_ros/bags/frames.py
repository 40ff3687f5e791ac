"""The common stream of all kinds of input, and its ROS 2 messages (rosbags' classes, no rclpy)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from lotus2_ros.config.installed import share
from lotus2_ros.geometry.camera import Camera

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
ODOMETRY = "nav_msgs/msg/Odometry"
FRAME_REPORT = "lotus2_ros/msg/FrameReport"

# Without any calibration a camera has to be guessed: 60 degrees is between a webcam and a phone.
ASSUMED_FOV = 60.0
# Of frames that come from files. Files carry no time: the first frame is at one second, as a zero stamp means "unset".
FRAME_ID = "camera_optical_frame"
START_NS = PERIOD_NS = 10**9


@dataclass(frozen=True)
class RecordedFrame:
    """One image with its calibration and references; every message is a ROS 2 message with the image's frame_id."""

    stamp_ns: int
    image: Any  # sensor_msgs Image or CompressedImage
    camera_info: Any
    reference: Any | None  # sensor_msgs Image, 32FC1 m or 16UC1 mm; with a stamp of its own
    recorded_ns: int | None = None  # when it was recorded; None: at its stamp
    points: tuple[Any, ...] = ()  # sensor_msgs PointCloud2, measured points whose nearest image this is
    transforms: tuple[tuple[Any, bool], ...] = ()  # tf2_msgs TFMessage since the last frame, and whether it is static
    odometry: tuple[Any, ...] = ()  # nav_msgs Odometry since the last frame

    @property
    def time_ns(self) -> int:
        """The time at which a bag holds it. Stamps may jump or go back, the time of a recording does not."""
        return self.stamp_ns if self.recorded_ns is None else self.recorded_ns


@dataclass(frozen=True)
class Recording:
    """An opened input: its name, the source of its calibration, and its frames in the order of their recording.
    ``reference`` is the topics or file of measured depth, points and odometry; empty if there is none. ``count`` is the
    number of frames, some of which may turn out to be damaged; None: not known."""

    name: str
    camera: str
    frames: Callable[[], Iterator[RecordedFrame]]
    reference: str = ""
    count: int | None = None
    topics: tuple[str, ...] = ()  # of a bag, which its frames are made of


Say = Callable[[str], None]  # takes a line for the user, such as why a frame was skipped


def say_on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@cache
def typestore() -> Any:
    """The ROS 2 message types and lotus2_ros/msg/FrameReport."""
    store = get_typestore(Stores.ROS2_KILTED)
    store.register(get_types_from_msg(share("msg/FrameReport.msg").read_text(), FRAME_REPORT))
    return store


def message(name: str, /, **fields: Any) -> Any:
    """A message of type ``name``, e.g. ``sensor_msgs/msg/Image``."""
    return typestore().types[name](**fields)


def header(stamp_ns: int, frame_id: str) -> Any:
    time = message("builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return message("std_msgs/msg/Header", stamp=time, frame_id=frame_id)


def stamp_ns(item: Any) -> int:
    """Nanoseconds of a message's header stamp."""
    return item.header.stamp.sec * 10**9 + item.header.stamp.nanosec


def image_message(pixels: np.ndarray, encoding: str, head: Any) -> Any:
    """sensor_msgs/Image of ``pixels`` (H,W) or (H,W,C), rows without padding."""
    pixels = np.ascontiguousarray(pixels)
    height, width = pixels.shape[:2]
    return message(
        IMAGE, header=head, height=height, width=width, encoding=encoding, is_bigendian=int(sys.byteorder == "big"),
        step=pixels.nbytes // height, data=pixels.reshape(-1).view(np.uint8),
    )  # fmt: skip


def camera_info_message(
    camera: Camera, head: Any, distortion: list[float] | None = None, projection: list[float] | None = None
) -> Any:
    """sensor_msgs/CameraInfo; ``distortion`` plumb_bob (k1 k2 p1 p2 k3), ``projection`` (3x4) after rectification."""
    K = camera.K.numpy()
    own_projection = np.hstack([K, np.zeros((3, 1))]).ravel()
    roi = message("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return message(
        CAMERA_INFO, header=head, height=camera.height, width=camera.width, distortion_model="plumb_bob",
        d=np.array(distortion or [0.0] * 5), k=K.ravel(), r=np.eye(3).ravel(),
        p=np.array(projection, dtype=np.float64) if projection else own_projection, binning_x=0, binning_y=0, roi=roi,
    )  # fmt: skip
