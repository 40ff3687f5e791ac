"""Recorded frames with depth to measure against: one folder each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

_IMAGES = ("rgb.png", "rgb.jpg", "left.png")
_DEPTHS = ("depth.png", "depth_sparse_derived.png", "depth.npy", "depth_derived_m.npy")


@dataclass(frozen=True)
class Frame:
    """image (H, W, 3) uint8 RGB and depth (H, W) float32 in metres, perhaps sparse: 0, NaN, Inf are no measurement."""

    name: str
    image: Tensor
    depth: Tensor


def read_frames(folder: Path) -> Iterator[Frame]:
    """The frame in `folder`, or in every folder inside it that holds one.

    A frame is an image (rgb.png, rgb.jpg, left.png) and a depth of the same size: .npy in metres, or a 16-bit PNG in
    units of 1 / `depth_scale` metres, which intrinsics.json beside it says.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    folders = [path for path in (folder, *sorted(folder.iterdir())) if path.is_dir() and _find(path, _DEPTHS)]
    if not folders:
        raise FileNotFoundError(f"{folder}: expected a depth ({', '.join(_DEPTHS)}) in it or in a folder in it")
    yield from map(_read_frame, folders)


def _find(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_frame(folder: Path) -> Frame:
    image_path, depth_path = _find(folder, _IMAGES), _find(folder, _DEPTHS)
    if image_path is None or depth_path is None:
        raise FileNotFoundError(f"{folder}: expected an image among {', '.join(_IMAGES)}")
    image = cv2.imread(str(image_path), cv2.IMREAD_COLOR_RGB)
    depth = _read_depth(depth_path)
    if image is None or image.shape[:2] != depth.shape:
        got = "no readable image" if image is None else f"{image.shape[1]} x {image.shape[0]}"
        raise ValueError(f"{image_path}: expected an image of the depth's size {depth.shape[::-1]}, got {got}")
    return Frame(folder.name, torch.from_numpy(image), torch.from_numpy(depth))


def _read_depth(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path).astype(np.float32)
    intrinsics = json.loads((path.parent / "intrinsics.json").read_text())
    if "depth_scale" not in intrinsics:
        raise ValueError(f"{path.parent / 'intrinsics.json'}: expected depth_scale, the depth image's units per metre")
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.dtype != np.uint16 or raw.ndim != 2:
        raise ValueError(f"{path}: expected a 16-bit grey PNG")
    return raw.astype(np.float32) / float(intrinsics["depth_scale"])
