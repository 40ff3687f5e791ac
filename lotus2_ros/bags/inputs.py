"""Which reader an input needs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from lotus2_ros.bags import files, recorded
from lotus2_ros.bags.frames import Recording
from lotus2_ros.inference.inputs import InputError

BAG_SUFFIXES = (".bag", ".mcap", ".db3")


def open_recording(
    paths: Sequence[Path | str],
    *,
    topic: str | None = None,
    reference_topic: str | None = None,
    fov: float | None = None,
    limit: int | None = None,
) -> Recording:
    """Open image files, a folder, a video, a rosbag2 or a ROS 1 bag.

    A folder is a rosbag2 (``metadata.yaml``, or one ``.mcap``, ``.db3`` or ``.bag`` file in it), one RGB-D frame
    (``intrinsics.json``), or images in the order of their names.

    Args:
        topic: the image topic of a bag; needed only where there are several.
        reference_topic: the depth topic of a bag that gives the scale; ``/reference/depth`` where there is one.
        fov: horizontal field of view in degrees for an input without calibration.
        limit: the first so many frames only.

    Raises:
        InputError: nothing that can be read; FileNotFoundError: no such file.
    """
    items = [Path(path) for path in paths]
    for item in items:
        if not item.exists():
            raise FileNotFoundError(f"no such file or folder: {item}")
    recording = _open(items, topic, reference_topic, fov)
    if limit is None:
        return recording
    return Recording(recording.name, recording.camera, lambda: islice(recording.frames(), limit))


def _open(items: list[Path], topic: str | None, reference_topic: str | None, fov: float | None) -> Recording:
    if len(items) == 1 and (bag := find_bag(items[0])) is not None:
        return recorded.open_bag(bag, topic, reference_topic, fov)
    if topic or reference_topic:
        raise InputError(f"a topic was given, but {items[0]} is not a bag")
    if len(items) == 1 and items[0].is_dir():
        if (items[0] / "intrinsics.json").is_file():
            return files.open_rgbd(items[0])
        images = sorted(file for file in items[0].iterdir() if file.is_file() and files.is_image(file))
        if not images:
            raise InputError(f"{items[0]}: expected images, a bag or an RGB-D frame in this folder, found none")
        return files.open_images(images, fov)
    if all(item.is_file() and files.is_image(item) for item in items):
        return files.open_images(items, fov)
    if len(items) == 1:
        return files.open_video(items[0], fov)
    raise InputError("expected one folder, video or bag, or several image files")


def find_bag(path: Path) -> Path | None:
    """What rosbags opens: a bag file or a folder with metadata.yaml; None if ``path`` is no bag."""
    if path.is_file():
        return path if path.suffix in BAG_SUFFIXES else None
    if (path / "metadata.yaml").is_file():
        return path
    bags = sorted(file for file in path.iterdir() if file.suffix in BAG_SUFFIXES)
    if len(bags) > 1:
        raise InputError(f"{path}: {len(bags)} bags in this folder, name one of: {', '.join(b.name for b in bags)}")
    return bags[0] if bags else None
