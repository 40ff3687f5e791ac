"""The data of one camera in a running graph or a recording: the subject of the checks in ``camera.py``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from torch import Tensor

from lotus2_ros.config import Config
from lotus2_ros.config.names import DEPTH_INPUT, IMAGE_INPUT, INFO_INPUT, POINTS_INPUT
from lotus2_ros.geometry.calibration import Calibration
from lotus2_ros.ros.messages import MessageError, image_to_tensor, stamp_nanoseconds

# The node's inputs, by their names without remapping.
INPUTS: dict[str, tuple[type, ...]] = {
    IMAGE_INPUT: (Image, CompressedImage),
    INFO_INPUT: (CameraInfo,),
    DEPTH_INPUT: (Image, CompressedImage),
    POINTS_INPUT: (PointCloud2,),
}
MAX_SAMPLES = 8  # messages kept of a topic, each of another kind


class Stream:
    """The messages of one topic: the times and stamps of all, and the newest of each kind."""

    def __init__(self, topic: str, publishers: int | None = None) -> None:
        self.topic = topic
        self.publishers = publishers  # None: of a recording
        self.times: list[float] = []  # seconds, when each message was received or recorded
        self.stamps: list[int] = []  # nanoseconds
        self.samples: dict[object, Any] = {}
        self.failures: list[str] = []  # messages that could not be read

    def add(self, message: Any, time: float, convert: Callable[[Any], Any] = lambda message: message) -> None:
        """Take a message in. ``convert`` makes the message of the ROS client library of one that is kept."""
        self.times.append(time)
        self.stamps.append(stamp_nanoseconds(message.header))
        kind = kind_of(message)
        if kind in self.samples or len(self.samples) < MAX_SAMPLES:
            self.samples[kind] = convert(message)

    @property
    def exists(self) -> bool:
        return bool(self.publishers or self.times or self.failures)

    @property
    def newest(self) -> Any:
        """The newest message, or None."""
        return max(self.samples.values(), key=lambda message: stamp_nanoseconds(message.header), default=None)

    @property
    def rate(self) -> float:
        """Messages per second; 0 for fewer than two."""
        span = self.times[-1] - self.times[0] if self.times else 0.0
        return (len(self.times) - 1) / span if span > 0 else 0.0


@dataclass
class Evidence:
    """The streams of one camera by the node's names of its inputs.

    ``topics``: the type of every topic there is. ``links``: pairs (parent, child) of frames from /tf and /tf_static;
    None if these could not be read. ``place``: where it is from, for people.
    """

    config: Config
    place: str
    streams: dict[str, Stream]
    rectified: bool
    topics: dict[str, str] = field(default_factory=dict)
    links: set[tuple[str, str]] | None = None
    is_live: bool = True

    @cached_property
    def images(self) -> list[tuple[Image | CompressedImage, Tensor | MessageError]]:
        """One image of each kind, and its pixels or why there are none."""
        decoded: list[tuple[Image | CompressedImage, Tensor | MessageError]] = []
        for message in self.streams[IMAGE_INPUT].samples.values():
            try:
                decoded.append((message, image_to_tensor(message, self.config.input)))
            except MessageError as error:
                decoded.append((message, error))
        return decoded

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of the images that can be decoded."""
        shapes = [pixels.shape for _, pixels in self.images if isinstance(pixels, Tensor)]
        return list(dict.fromkeys((shape[0], shape[1]) for shape in shapes))

    @property
    def camera_frame(self) -> str:
        newest = self.streams[IMAGE_INPUT].newest
        return newest.header.frame_id if newest is not None else ""

    def topics_for(self, name: str) -> list[str]:
        """All topics of a type that an input takes."""
        return sorted(topic for topic, kind in self.topics.items() if kind in types_of(name))


def types_of(name: str) -> list[str]:
    """The types of an input's messages, ``sensor_msgs/msg/Image`` say."""
    return [f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}" for kind in INPUTS[name]]


def kind_of(message: Any) -> object:
    """Equal for messages that one check covers; of the client library, or of rosbags."""
    name, frame = type(message).__name__.rpartition("__")[2], message.header.frame_id
    if name.endswith(CameraInfo.__name__):
        return Calibration.of(message), frame
    if name.endswith(CompressedImage.__name__):
        return message.format, frame
    if name.endswith(Image.__name__):
        return message.width, message.height, message.encoding, message.step, frame
    return frame


def described(message: Any) -> str:
    """A message in a few words."""
    if isinstance(message, CameraInfo):
        return f"{message.width}x{message.height} {message.distortion_model}".strip()
    if isinstance(message, Image):
        return f"{message.width}x{message.height} {message.encoding}, {len(message.data) / 1e6:.2f} MB"
    if isinstance(message, CompressedImage):
        return f"{message.format}, {len(message.data) / 1e6:.2f} MB"
    assert isinstance(message, PointCloud2)
    return f"{message.width * message.height} points"
