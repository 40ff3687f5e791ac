"""Chooses the reader for an input."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from lotus2_ros.bags import files, intrinsics, recorded
from lotus2_ros.bags.frames import Recording, Say, say_on_stderr
from lotus2_ros.bags.mcap import MAGIC
from lotus2_ros.bags.reader import METADATA, ZSTD_MAGIC
from lotus2_ros.bags.topics import BagTopics
from lotus2_ros.bags.video import open_video
from lotus2_ros.config.errors import InputError
from lotus2_ros.inference.image_files import is_image

BAG_SUFFIXES = (".bag", ".mcap", ".db3")
# How bags begin: first bytes, the kind of file, and what to do if its name does not say so.
MISNAMED = (
    (MAGIC, "an MCAP file", "rename it to {stem}.mcap"),
    (b"SQLite format 3", "an SQLite file", "rename it to {stem}.db3"),
    (b"#ROSBAG", "a ROS 1 bag", "rename it to {stem}.bag, and `rosbag reindex` it if its recorder was killed"),
    (ZSTD_MAGIC, "a file compressed by zstd", "`zstd -d {name}`, or give the folder with its metadata.yaml"),
)
LISTED = 3  # names of skipped files in a line


def open_recording(
    paths: Sequence[Path | str],
    *,
    topic: str | None = None,
    reference_topic: str | None = None,
    camera_info_topic: str | None = None,
    odometry_topic: str | None = None,
    with_transforms: bool = False,
    rectified: str = "auto",
    fov: float | None = None,
    limit: int | None = None,
    say: Say = say_on_stderr,
) -> Recording:
    """Open image files, a folder, a video, a rosbag2 or a ROS 1 bag.

    A folder is a rosbag2 (``metadata.yaml``, or one ``.mcap``, ``.db3`` or ``.bag`` file in it), one RGB-D frame
    (``intrinsics.json`` with ``rgb.*`` or ``left.*``), or images in the order of their names.

    Args:
        topic: the image topic of a bag; needed only where there are several.
        reference_topic: the topic of depth images or points of a bag that gives the scale; by default
            ``reference/depth`` and ``reference/points``, of the camera's namespace (``/front`` of ``/front/image``) or
            the nearest above it. Points need /tf unless they are in the camera's frame.
        camera_info_topic: the camera_info topic of a bag; by default the one that belongs to ``topic`` by its name.
        odometry_topic: the nav_msgs/Odometry of a bag; by default ``odometry``, found as the references are.
        with_transforms: read /tf and /tf_static even if the bag has neither points nor odometry.
        rectified: whether the images of a bag are: yes, no, or auto by the name of their topic.
        fov: horizontal field of view in degrees, in place of any calibration.
        limit: only the first frames, this many.
        say: is given a line about each frame that is skipped and each damage that is found; stderr by default.

    Raises:
        InputError: nothing that can be read; FileNotFoundError: no such file.
    """
    if limit is not None and limit <= 0:
        raise InputError(f"expected a positive number of frames, got {limit}")
    if fov is not None and not 0 < fov < 180:
        raise InputError(f"expected a horizontal field of view between 0 and 180 degrees, got {fov:g}")
    items = [Path(path) for path in paths]
    for item in items:
        if not item.exists():
            raise FileNotFoundError(f"no such file or folder: {item}")
    topics = BagTopics(topic, reference_topic, camera_info_topic, odometry_topic, with_transforms, rectified)
    recording = _open(items, topics, fov, _once(say))
    if limit is None:
        return recording
    count = None if recording.count is None else min(limit, recording.count)
    return replace(recording, frames=lambda: islice(recording.frames(), min(limit, sys.maxsize)), count=count)


def _once(say: Say) -> Say:
    """The same, without repeating a line: a bag is opened several times."""
    said: set[str] = set()

    def say_new(line: str) -> None:
        if line not in said:
            said.add(line)
            say(line)

    return say_new


def _open(items: list[Path], topics: BagTopics, fov: float | None, say: Say) -> Recording:
    if len(items) == 1 and (bag := find_bag(items[0])) is not None:
        return recorded.open_bag(bag, topics, fov, say)
    if topics.needs_bag:
        raise InputError(f"expected a bag, because a topic was given, got {items[0]}")
    if len(items) == 1 and items[0].is_dir():
        if files.is_rgbd(items[0]):
            return files.open_rgbd(items[0], fov, say)
        images = folder_images(items[0], say)
        return files.open_images(images, fov, say)
    if all(item.is_file() and is_image(item) for item in items):
        return files.open_images(items, fov, say)
    if len(items) == 1:
        return open_video(items[0], *files.calibration_beside(items[0], fov, say))
    raise InputError("expected one folder, video or bag, or several image files")


def find_bag(path: Path) -> Path | None:
    """The path that rosbags opens: a bag file, or a folder with metadata.yaml; None if ``path`` is no bag.

    Raises InputError for one of several bags in a folder, and for a bag with the name of another kind of file.
    """
    if path.name == METADATA:
        return path.parent
    if path.suffix in BAG_SUFFIXES and path.is_file():
        return path
    if not path.is_dir():
        _check_name(path)
        return None
    if (path / METADATA).is_file():
        return path
    bags = sorted(file for file in path.iterdir() if file.suffix in BAG_SUFFIXES)
    if len(bags) > 1:
        raise InputError(
            f"{path}: expected one bag in this folder, got {len(bags)}; name one of {', '.join(b.name for b in bags)}"
        )
    return bags[0] if bags else None


def _check_name(path: Path) -> None:
    """Raise InputError, which says what to do, if the file is a bag whose name does not end as that of one."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        start = file.read(16)
    for magic, what, advice in MISNAMED:
        if start.startswith(magic):
            advice = advice.format(name=path.name, stem=path.name.partition(".")[0])
            raise InputError(f"{path}: expected a name that ends in {', '.join(BAG_SUFFIXES)}, got {what}; {advice}")


def folder_images(folder: Path, say: Say) -> list[Path]:
    """The images of a folder in the order of their names; other files are reported with one line.

    Raises InputError if there are none.
    """
    images: list[Path] = []
    others: list[Path] = []
    for file in sorted(folder.iterdir()):
        if file.is_dir() or file.name.startswith(".") or file.name == intrinsics.NAME:
            continue
        try:
            (images if file.is_file() and is_image(file) else others).append(file)
        except OSError as error:
            others.append(file.with_name(f"{file.name} ({error.strerror})"))
    names = ", ".join(file.name for file in others[:LISTED]) + (", ..." if len(others) > LISTED else "")
    if not images:
        found = f"only {names}" if others else "none"
        raise InputError(f"{folder}: expected images, a bag or an RGB-D frame in this folder, found {found}")
    if others:
        count = len(images) + len(others)
        say(f"{folder}: {len(images)} of {count} files are used, {len(others)} skipped as no images: {names}")
    return images
