"""The node's messages for a viewer, live or of a recording."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import rclpy
import torch
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from torch import Tensor
from tqdm import tqdm

from lotus2_ros.bags import read_messages
from lotus2_ros.bags.inputs import find_bag
from lotus2_ros.bags.writer import COMPRESSED_TOPIC, IMAGE_TOPIC
from lotus2_ros.config.errors import InputError
from lotus2_ros.msg import FrameReport
from lotus2_ros.ros.messages import MessageError, image_to_tensor, stamp_nanoseconds
from lotus2_ros.ros.report import COUNTERS
from lotus2_ros.ros.serialized import deserialize
from lotus2_ros.ros.start import start_ros
from lotus2_ros.ros.topics import PREFIXES, TOPICS
from lotus2_ros.view.rerun_log import RerunLog

Show: TypeAlias = Callable[[RerunLog, str, Any], None]
# By the name below the node's: how a message is shown. Both depths, both clouds: the node publishes one of each.
SHOWN: dict[str, Show] = {
    "depth/image": lambda log, stage, item: log.depth(stage, float_image(item), is_metric=True),
    "relative/depth/image": lambda log, stage, item: log.depth(stage, float_image(item), is_metric=False),
    "normals/color": lambda log, stage, item: log.normals(stage, image_to_tensor(item)),
    "points": lambda log, stage, item: log.points(stage, *cloud_tensors(item)),
    "relative/points": lambda log, stage, item: log.points(stage, *cloud_tensors(item)),
}


class Viewing:
    """Shows the messages of a node and of its image topic, in any order."""

    def __init__(self, log: RerunLog, node: str, image_topics: tuple[str, ...]) -> None:
        self._log = log
        self._images = image_topics
        below = f"/{node.strip('/')}/"
        self._report = f"{below}report"
        self._shown: dict[str, tuple[str, Show]] = {}
        self.topics: dict[str, type] = {self._report: FrameReport}  # with the kinds of their messages
        for (stage, prefix), (name, show) in product(PREFIXES.items(), SHOWN.items()):
            self._shown[below + prefix + name] = stage, show
            self.topics[below + prefix + name] = TOPICS[name].kind
        self.count = 0  # messages shown, without images

    def show(self, topic: str, item: Any) -> None:
        """A message of rclpy. One that cannot be shown is left out."""
        self._log.at(stamp_nanoseconds(item.header))
        try:
            if topic in self._images:
                self._log.image(image_to_tensor(item))
                return
            if topic == self._report:
                show_report(self._log, item)
            else:
                stage, show = self._shown[topic]
                show(self._log, stage, item)
        except (MessageError, ValueError) as error:
            tqdm.write(f"{topic}: not shown: {error}")
            return
        self.count += 1


def show_report(log: RerunLog, report: Any) -> None:
    values = {"scale/scale": report.scale, "scale/age": report.scale_age}
    values |= {f"frames/{name}": float(getattr(report, f"frames_{name}")) for name in COUNTERS}
    known = {path: value for path, value in values.items() if value == value}
    source = report.scale_source if report.metric else f"{report.scale_source} (relative)"
    latency = dict(zip(report.latency_names, report.latency_ms, strict=True))
    log.report(report.stage, source, known, latency, report.scale_note)


def view_recording(log: RerunLog, path: Path, node: str) -> int:
    """Show a bag that ``lotus2 bag`` or the demo wrote. Returns how many messages. Raises InputError if it has none."""
    bag = find_bag(path)
    if bag is None:
        raise InputError(f"{path}: expected a bag of results")
    images = (IMAGE_TOPIC, COMPRESSED_TOPIC)
    viewing = Viewing(log, node, images)
    wanted = [*images, *viewing.topics]
    unread: set[str] = set()
    for topic, kind, _, raw in tqdm(read_messages(bag, wanted), unit=" messages"):
        try:
            item = deserialize(raw, kind)
        except Exception as error:  # the middleware's, of a report as an earlier version wrote it
            if topic not in unread:
                tqdm.write(f"{topic}: not shown, of another version: {error}")
            unread.add(topic)
            continue
        viewing.show(topic, item)
    if not viewing.count:
        raise InputError(f"{bag}: no results of a node {node!r}; `lotus2 bag {path} OUT` makes them")
    return viewing.count


def view_node(log: RerunLog, node: str, image_topic: str, compressed: bool, seconds: float | None) -> int:
    """Show what a running node publishes until Ctrl-C, or for `seconds`. Returns the number of messages."""
    start_ros()
    viewing = Viewing(log, node, (image_topic,))
    try:
        viewer = Node("lotus2_view")
        # The newest only: a viewer that falls behind must not hold up the node.
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        for topic, kind in {image_topic: CompressedImage if compressed else Image, **viewing.topics}.items():
            viewer.create_subscription(kind, topic, lambda item, t=topic: viewing.show(t, item), qos)
        end = float("inf") if seconds is None else time.monotonic() + seconds
        while rclpy.ok() and time.monotonic() < end:
            rclpy.spin_once(viewer, timeout_sec=0.1)
    finally:
        rclpy.try_shutdown()
    return viewing.count


def float_image(item: Any) -> Tensor:
    """A 32FC1 or 32FC3 image of the node: (H, W) or (H, W, 3)."""
    values = np.frombuffer(item.data, np.float32)
    shape = (item.height, item.width, 3) if item.encoding == "32FC3" else (item.height, item.width)
    return torch.from_numpy(values.reshape(shape).copy())


def cloud_tensors(cloud: Any) -> tuple[Tensor, Tensor]:
    """Points (H, W, 3) float32 and colors (H, W, 3) uint8 of a cloud of the node: x, y, z, rgb, maybe more."""
    values = np.frombuffer(cloud.data, np.float32).reshape(cloud.height, cloud.width, cloud.point_step // 4)
    rgb = values[..., 3].view(np.uint32)
    colors = np.stack([rgb >> 16 & 255, rgb >> 8 & 255, rgb & 255], axis=-1).astype(np.uint8)
    return torch.from_numpy(values[..., :3].copy()), torch.from_numpy(colors)
