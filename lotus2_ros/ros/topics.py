"""The published topics, and the payloads and messages of a geometry.

Publishing takes two steps in two threads. The model thread produces the *payloads*, tensors on its device. The sender
thread converts them to messages once they are on the host.

To add a topic, add its entry to TOPICS with its producer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
from torch import Tensor

from lotus2_ros.config import CloudConfig
from lotus2_ros.geometry.floor import Floor
from lotus2_ros.geometry.normals import normals_to_color
from lotus2_ros.inference.clouds import cloud_of
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.ros.clouds import tensor_to_cloud
from lotus2_ros.ros.messages import tensor_to_image

# The content of a message: a tensor, or the camera_info of the image.
Payload: TypeAlias = "Tensor | CameraInfo"


@dataclass(frozen=True)
class ProducerInput:
    """The argument of producers: a geometry, the camera_info of its image, and the parameters of clouds."""

    geometry: Geometry
    info: CameraInfo | None
    cloud: CloudConfig
    floor: Floor | None = None  # if it is known

    @cached_property
    def points(self) -> Tensor | None:
        """Rows of an organized cloud (H', W', C), computed once for all topics that need them."""
        return cloud_of(self.geometry, self.cloud, with_floor=self.cloud.remove_ground != "all", floor=self.floor)

    @property
    def unfiltered_points(self) -> Tensor | None:
        """The rows that the filtered cloud is made of."""
        if self.cloud.remove_ground == "filtered":
            return cloud_of(self.geometry, self.cloud, with_floor=False, floor=self.floor)
        return self.points

    @property
    def colored_normals(self) -> Tensor | None:
        normals = self.geometry.normals
        return None if normals is None else normals_to_color(normals)


@dataclass(frozen=True)
class Topic:
    """One published topic.

    ``task`` is the model's task that it needs, ``encoding`` that of an image. ``metric``: the topic is published only
    while the scale is metric (True) or relative (False); None: always. ``produce`` gives None where a geometry has
    nothing for the topic.
    """

    kind: type
    task: str
    description: str
    produce: Callable[[ProducerInput], Payload | None]
    encoding: str = ""
    metric: bool | None = None

    @property
    def help(self) -> str:
        return f"{self.encoding}, {self.description}" if self.encoding else self.description


FILTERED = "filtered/points"  # published by the filter thread
SIGMA = "uncertainty/depth"
PREFIXES = {"core": "", "sharpener": "sharp/"}  # below ~/, by the stage of the result
TOPICS = {
    "depth/image": Topic(
        Image,
        "depth",
        "meters along z; published only while the scale is metric",
        lambda source: source.geometry.depth,
        "32FC1",
        metric=True,
    ),
    "depth/camera_info": Topic(
        CameraInfo, "depth", "camera_info of the depth image", lambda source: source.info, metric=True
    ),
    "points": Topic(
        PointCloud2,
        "depth",
        "organized cloud of x, y, z and rgb in meters; published only while the scale is metric",
        lambda source: source.points,
        metric=True,
    ),
    "relative/depth/image": Topic(
        Image,
        "depth",
        "depth up to an unknown factor; published only while the scale is not metric",
        lambda source: source.geometry.depth,
        "32FC1",
        metric=False,
    ),
    "relative/points": Topic(
        PointCloud2,
        "depth",
        "organized cloud up to an unknown factor; published only while the scale is not metric",
        lambda source: source.points,
        metric=False,
    ),
    FILTERED: Topic(
        PointCloud2,
        "depth",
        "`points`, downsampled to voxels and without outliers, every `cloud.filter_period` seconds",
        lambda source: source.unfiltered_points,
        metric=True,
    ),
    "disparity/image": Topic(
        Image,
        "depth",
        "disparity as the model predicts it, up to scale and shift: 1 = near, 0 = far",
        lambda source: source.geometry.disparity,
        "32FC1",
    ),
    "uncertainty/image": Topic(
        Image,
        "depth",
        "standard deviation of the disparity: over the model's samples, over the test-time flip of `model.mirror`, or "
        "as the model's uncertainty head predicts it",
        lambda source: source.geometry.uncertainty,
        "32FC1",
    ),
    SIGMA: Topic(
        Image,
        "depth",
        "one standard deviation of depth, meters; published only while the scale is metric",
        lambda source: source.geometry.sigma,
        "32FC1",
        metric=True,
    ),
    "normals/image": Topic(
        Image,
        "normals",
        "unit normals in the optical frame, pointing toward the camera",
        lambda source: source.geometry.normals,
        "32FC3",
    ),
    "normals/color": Topic(
        Image, "normals", "normals as colors, for viewing", lambda source: source.colored_normals, "rgb8"
    ),
}


def payloads_of(
    geometry: Geometry,
    info: CameraInfo | None,
    cloud: CloudConfig,
    wanted: Callable[[str], bool],
    floor: Floor | None = None,
) -> dict[str, Payload]:
    """The payload of each wanted topic that the geometry has something for; tensors are contiguous, on its device.

    ``floor``: where it is, if that is known.
    """
    source = ProducerInput(geometry, info, cloud, floor)
    payloads: dict[str, Payload] = {}
    for name, topic in TOPICS.items():
        if topic.metric not in (None, geometry.scale.metric) or not wanted(name):
            continue
        payload = topic.produce(source)
        if payload is not None:
            payloads[name] = payload.contiguous() if isinstance(payload, Tensor) else payload
    return payloads


def message_of(name: str, payload: Payload, header: Header) -> Image | CameraInfo | PointCloud2:
    """The message of a topic's payload. It owns its memory: the payload's memory may be reused."""
    if not isinstance(payload, Tensor):
        info = deepcopy(payload)
        info.header = header
        return info
    if TOPICS[name].kind is PointCloud2:
        return tensor_to_cloud(payload, header)
    return tensor_to_image(payload, TOPICS[name].encoding, header)


def messages_of(
    geometry: Geometry,
    info: CameraInfo | None,
    header: Header,
    cloud: CloudConfig,
    wanted: Callable[[str], bool],
    floor: Floor | None = None,
) -> Iterator[tuple[str, Image | CameraInfo | PointCloud2]]:
    """Name and message of each wanted topic that the geometry has something for, except FILTERED."""
    payloads = payloads_of(geometry, info, cloud, lambda name: name != FILTERED and wanted(name), floor)
    return ((name, message_of(name, payload, header)) for name, payload in payloads.items())
