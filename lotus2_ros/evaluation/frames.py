"""Recorded RGB-D frames to measure against: one folder each, as :func:`lotus2_ros.bags.files.open_rgbd` reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from lotus2_ros.bags.files import find_depth, find_image, read_depth
from lotus2_ros.bags.intrinsics import NAME, read_calibration
from lotus2_ros.data.sample import Sample
from lotus2_ros.inference.image_files import read_rgb


def read_frames(folder: Path) -> Iterator[Sample]:
    """The frame in `folder`, and in each folder inside it that holds a depth. Depth may be sparse: NaN is unknown.

    Raises ValueError on files that do not fit, FileNotFoundError if there is no frame.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    folders = [path for path in (folder, *sorted(folder.iterdir())) if path.is_dir() and find_depth(path)]
    if not folders:
        raise FileNotFoundError(f"{folder}: expected a depth (depth*.png, depth*.npy) in it or in a folder in it")
    yield from map(_read_frame, folders)


def _read_frame(folder: Path) -> Sample:
    image_file, depth_file = find_image(folder), find_depth(folder)
    assert depth_file is not None  # read_frames checked it
    image = read_rgb(image_file)
    depth = read_depth(depth_file, read_calibration(folder / NAME).get("depth_scale"))
    if image.shape[:2] != depth.shape:
        size = f"{image.shape[1]} x {image.shape[0]}"
        raise ValueError(f"{image_file}: expected an image of the depth's size {depth.shape[::-1]}, got {size}")
    return Sample(folder.name, torch.from_numpy(image), torch.from_numpy(depth))
