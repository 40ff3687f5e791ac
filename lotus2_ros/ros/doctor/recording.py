"""A recording as the same evidence as a running graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lotus2_ros.bags.calibrations import info_topics
from lotus2_ros.bags.frames import CAMERA_INFO
from lotus2_ros.bags.inputs import find_bag
from lotus2_ros.bags.reader import BagReader, absolute, open_reader
from lotus2_ros.bags.topics import DEPTH_TOPICS, choose_topic, image_topics, own_topic
from lotus2_ros.bags.transforms import TF_STATIC_TOPIC, TF_TOPIC
from lotus2_ros.config import Config
from lotus2_ros.config.errors import InputError
from lotus2_ros.config.names import DEPTH_INPUT, IMAGE_INPUT, INFO_INPUT, POINTS_INPUT
from lotus2_ros.geometry.calibration import is_rectified
from lotus2_ros.ros.doctor.evidence import INPUTS, Evidence, Stream, types_of
from lotus2_ros.ros.recorded_camera import ros_message


def read(path: Path, config: Config, names: Mapping[str, str], seconds: float | None) -> tuple[Evidence, list[str]]:
    """The evidence of a bag, of its first ``seconds`` or all of it, and what is damaged, a line each.

    ``names``: the topics of the node's inputs that the user gave; others are found as ``lotus2 bag`` finds them. Raises
    InputError if nothing can be read, or if there are several cameras and none was named.
    """
    bag = find_bag(path)
    if bag is None:
        raise InputError(f"{path}: expected a bag")
    damages: list[str] = []
    with open_reader(bag, damages.append) as reader:
        streams = {name: Stream(topic) for name, topic in _choose(reader, names).items()}
        links: set[tuple[str, str]] = set()
        _follow(reader, streams, links, seconds)
        topics = dict(reader.topics)
    return Evidence(
        config=config,
        place=str(path),
        streams=streams,
        rectified=is_rectified(streams[IMAGE_INPUT].topic, config.input.rectified),
        topics=topics,
        links=links,
        is_live=False,
    ), list(dict.fromkeys(damages))


def _choose(reader: BagReader, names: Mapping[str, str]) -> dict[str, str]:
    """The topic of each input: as it was named, else the node's own name, else for images and camera_info the one
    that is there."""
    chosen = {name: absolute(names.get(name, name)) for name in INPUTS}
    if IMAGE_INPUT not in names and chosen[IMAGE_INPUT] not in reader.topics:
        images = image_topics(reader)
        chosen[IMAGE_INPUT] = choose_topic(reader.path, images, None) if images else chosen[IMAGE_INPUT]
    if INFO_INPUT not in names:
        infos = [topic for topic, kind in reader.topics.items() if kind == CAMERA_INFO]
        by_name = [topic for topic in info_topics(chosen[IMAGE_INPUT]) if topic in infos]
        chosen[INFO_INPUT] = (by_name or (infos if len(infos) == 1 else [chosen[INFO_INPUT]]))[0]
    for name, known in {DEPTH_INPUT: DEPTH_TOPICS, POINTS_INPUT: (POINTS_INPUT,)}.items():
        there = [topic for topic, kind in reader.topics.items() if kind in types_of(name)]
        if name not in names:
            chosen[name] = own_topic(known, chosen[IMAGE_INPUT], there) or chosen[name]
    return chosen


def _follow(
    reader: BagReader, streams: Mapping[str, Stream], links: set[tuple[str, str]], seconds: float | None
) -> None:
    by_topic = {
        stream.topic: stream for name, stream in streams.items() if reader.topics.get(stream.topic) in types_of(name)
    }
    first: int | None = None
    for item in reader.messages([*by_topic, TF_TOPIC, TF_STATIC_TOPIC]):
        first = item.time_ns if first is None else first
        if seconds is not None and item.time_ns - first > seconds * 1e9:
            return
        stream = by_topic.get(item.topic)
        try:
            message: Any = reader.decode(item)
            if stream is None:
                links.update((link.header.frame_id, link.child_frame_id) for link in message.transforms)
            else:
                stream.add(message, item.time_ns * 1e-9, ros_message)
        except InputError as error:
            if stream is not None:
                stream.failures.append(str(error))
