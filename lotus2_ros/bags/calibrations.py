"""Which camera_info of a bag belongs to an image topic."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np

from lotus2_ros.bags.frames import CAMERA_INFO, stamp_ns
from lotus2_ros.bags.reader import BagReader, absolute
from lotus2_ros.config.errors import InputError
from lotus2_ros.geometry.calibration import Calibration
from lotus2_ros.geometry.camera import CameraError
from lotus2_ros.geometry.lens import LensError

# Suffixes that image_transport appends to the name of a topic whose images it compresses.
TRANSPORTS = ("compressed", "compressedDepth", "theora", "ffmpeg", "zstd", "foxglove", "draco")


@dataclass(frozen=True)
class CameraInfos:
    """The calibrations of a topic in the order of their stamps; ``problem`` says why there are none."""

    topic: str = ""
    infos: tuple[Any, ...] = ()
    problem: str = ""

    def nearest(self, stamp: int) -> Any:
        """The one nearest in time: a calibration hardly changes, and many recordings hold it with other stamps."""
        after = bisect_left(self.infos, stamp, key=stamp_ns)
        around = self.infos[max(0, after - 1) : after + 1]
        return min(around, key=lambda info: abs(stamp_ns(info) - stamp))


def base_topic(topic: str) -> str:
    """The topic of the images before image_transport: /camera/image_raw of /camera/image_raw/compressed."""
    base, _, name = topic.rpartition("/")
    return base if base and name in TRANSPORTS else topic


def info_topics(image_topic: str) -> list[str]:
    """Where ROS's camera drivers publish the calibration of an image topic, the most likely first.

    /left/image_rect_color: /left/camera_info_rect_color, /left/camera_info_rect, /left/camera_info.
    """
    folder, _, name = base_topic(image_topic).rpartition("/")
    parts = name.split("_")[1:] if name.startswith("image_") else []
    return [f"{folder}/" + "_".join(["camera_info", *parts[:count]]) for count in range(len(parts), -1, -1)]


def find_camera_infos(
    reader: BagReader, image_topic: str, wanted: str | None, first: Any, rectified: bool
) -> CameraInfos:
    """The calibrations for an image topic whose first message is ``first``: those asked for, or by their name.

    A bag's only camera_info is taken under any name if it is of the images' frame. Raises InputError if ``wanted`` is
    no topic of camera_info.
    """
    topics = sorted(topic for topic, kind in reader.topics.items() if kind == CAMERA_INFO)
    there = ", ".join(topics)
    if wanted is not None and absolute(wanted) not in topics:
        raise InputError(f"{reader.path}: no camera_info on {wanted}; camera_info topics: {there or 'none'}")
    by_name = [topic for topic in info_topics(image_topic) if topic in topics]
    if wanted is not None:
        chosen = absolute(wanted)
    elif by_name:
        chosen = by_name[0]
    elif len(topics) == 1:
        chosen = topics[0]
    else:
        return CameraInfos(problem=f"the bag has camera_info on {there}, none used" if topics else "")
    infos = list(_without_repetition(_decoded(reader, chosen)))
    if wanted is None and not by_name and infos and infos[0].header.frame_id != first.header.frame_id:
        return CameraInfos(problem=f"the bag has camera_info on {there} of another frame, not used")
    calibrated = [info for info in infos if Calibration.of(info).is_calibrated(rectified=rectified)]
    if not calibrated:
        return CameraInfos(problem=f"camera_info on {chosen} says uncalibrated (K is 0), not used")
    return CameraInfos(chosen, tuple(sorted(calibrated, key=stamp_ns)))


def _without_repetition(infos: Iterable[Any]) -> Iterator[Any]:
    """The first and the last of equal ones in a row, so that hours of a recording fit into memory."""

    def content(info: Any) -> tuple[object, ...]:
        return info.header.frame_id, Calibration.of(info), tuple(info.r)

    for _, equal in groupby(infos, content):
        yield next(equal)
        yield from deque(equal, maxlen=1)  # noqa: B031 - what is left of it


def _decoded(reader: BagReader, topic: str) -> Iterable[Any]:
    for item in reader.messages([topic]):
        try:
            yield reader.decode(item)
        except InputError:
            continue  # the others are as good


def misfit(info: Any, width: int, height: int, rectified: bool) -> str:
    """Why a camera_info is not of images of this size, as the node would say it; empty if it is.

    A distortion that is not supported is of these images all the same: whoever uses it refuses it.
    """
    try:
        Calibration.of(info).camera(width, height, rectified=rectified)
    except CameraError as error:
        return str(error)
    except LensError:
        return ""
    return ""


def rectified_info(info: Any) -> Any:
    """The CameraInfo of a rectified image as one of a pinhole: its readers do not see the name of the image's topic."""
    if not any(info.p) and any(info.d):
        return info  # K is of the raw image: nothing says what the rectified one has
    K = np.array(info.p).reshape(3, 4)[:, :3].ravel() if any(info.p) else info.k
    # An equidistant lens is a fisheye even with coefficients of 0.
    return replace(info, k=K, r=np.eye(3).ravel(), d=np.zeros(5), distortion_model="plumb_bob")
