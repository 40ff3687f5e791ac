"""Image files and one RGB-D frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lotus2_ros.bags import intrinsics
from lotus2_ros.bags.frames import (
    ASSUMED_FOV,
    FRAME_ID,
    PERIOD_NS,
    START_NS,
    RecordedFrame,
    Recording,
    Say,
    camera_info_message,
    header,
    image_message,
)
from lotus2_ros.config.errors import InputError
from lotus2_ros.geometry.calibration import Calibration
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.image_files import is_image, opencv_name, read_rgb

# The camera_info of an image, by its width, height and header. Raises InputError.
CameraInfoOf = Callable[[int, int, Any], Any]


def assumed_camera(width: int, height: int, fov: float | None) -> Camera:
    return Camera.from_fov(width, height, ASSUMED_FOV if fov is None else fov)


def camera_statement(fov: float | None) -> str:
    if fov is None:
        return f"assumed: horizontal field of view {ASSUMED_FOV:g} degrees (no calibration; --fov says otherwise)"
    return f"horizontal field of view {fov:g} degrees, as given"


def calibration_beside(file: Path, fov: float | None, say: Say) -> tuple[str, CameraInfoOf]:
    """Where the calibration of a file comes from, and its camera_info.

    It is the field of view if one is given, else ``intrinsics.json`` beside the file, else a guess. A calibration that
    is hardly right is reported to ``say``.
    """
    path = file.parent / intrinsics.NAME
    if fov is not None or not path.is_file():
        return camera_statement(fov), lambda w, h, head: camera_info_message(assumed_camera(w, h, fov), head)
    calibration = intrinsics.read_calibration(path)

    def info_of(width: int, height: int, head: Any) -> Any:
        info = intrinsics.camera_info(calibration, width, height, head)
        if doubt := Calibration.of(info).doubt(rectified=False):
            say(f"{path}: {doubt}")
        return info

    return intrinsics.statement(calibration), info_of


def open_images(paths: list[Path], fov: float | None, say: Say) -> Recording:
    """Images in the given order, one per second. Files that cannot be decoded are skipped, with one line each. If none
    can be decoded, the frames raise InputError at the end."""
    calibrations = {path.parent: calibration_beside(path, fov, say) for path in paths}

    def frames() -> Iterator[RecordedFrame]:
        failures = []
        for index, path in enumerate(paths):
            stamp = START_NS + index * PERIOD_NS
            head = header(stamp, FRAME_ID)
            try:
                rgb = read_rgb(path)
                info = calibrations[path.parent][1](rgb.shape[1], rgb.shape[0], head)
            except InputError as error:
                failures.append(str(error) if str(path) in str(error) else f"{path}: {error}")
                if len(paths) > 1:
                    say(f"skipped: {failures[-1]}")
                continue
            yield RecordedFrame(stamp, image_message(rgb, "rgb8", head), info, None)
        if len(failures) == len(paths):
            raise InputError(failures[0])

    name = str(paths[0]) if len(paths) == 1 else f"{len(paths)} images, {paths[0].name} to {paths[-1].name}"
    camera = "; ".join(dict.fromkeys(text for text, _ in calibrations.values()))
    return Recording(name, camera, frames, count=len(paths))


def open_rgbd(folder: Path, fov: float | None, say: Say) -> Recording:
    """One RGB-D frame: ``intrinsics.json``, ``rgb.*`` or ``left.*``, and optionally ``depth*.npy`` or ``depth*.png``.

    A depth PNG holds uint16 units of 1 / ``depth_scale`` meters, 0 = none; an ``.npy`` meters.
    """
    calibration = intrinsics.read_calibration(folder / intrinsics.NAME)
    image_file, depth_file = find_image(folder), find_depth(folder)
    camera, info_of = calibration_beside(image_file, fov, say)

    def frames() -> Iterator[RecordedFrame]:
        rgb = read_rgb(image_file)
        head = header(START_NS, FRAME_ID)
        info = info_of(rgb.shape[1], rgb.shape[0], head)
        depth = read_depth(depth_file, calibration.get("depth_scale")) if depth_file else None
        reference = None if depth is None else image_message(depth, "32FC1", head)
        yield RecordedFrame(START_NS, image_message(rgb, "rgb8", head), info, reference)

    return Recording(str(folder), camera, frames, reference=depth_file.name if depth_file else "", count=1)


def is_rgbd(folder: Path) -> bool:
    """Whether a folder is one RGB-D frame, and not images with a calibration beside them."""
    return (folder / intrinsics.NAME).is_file() and bool(_rgb_files(folder))


def find_image(folder: Path) -> Path:
    """The image of an RGB-D frame."""
    images = _rgb_files(folder)
    if not images:
        raise InputError(f"{folder}: expected rgb.* or left.* beside {intrinsics.NAME}")
    return images[-1]


def _rgb_files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.stem in ("rgb", "left") and f.is_file() and is_image(f))


def find_depth(folder: Path) -> Path | None:
    """The depth of an RGB-D frame, if it has one."""
    files = (file for file in folder.iterdir() if file.is_file())
    depths = sorted(f for f in files if f.stem.startswith("depth") and f.suffix in (".npy", ".png"))
    return depths[0] if depths else None


def read_depth(path: Path, scale: float | None) -> np.ndarray:
    """(H,W) float32 meters, NaN where there is no measurement."""
    if path.suffix == ".npy":
        try:
            depth = np.load(path, allow_pickle=False).astype(np.float32)
        except (ValueError, TypeError, EOFError, OSError, MemoryError) as error:
            raise InputError(f"{path}: expected an array of numbers ({error})") from None
    else:
        try:
            with opencv_name(path) as name:
                raw = cv2.imread(name, cv2.IMREAD_UNCHANGED)
        except cv2.error:  # of a size that it refuses
            raw = None
        if raw is None or raw.dtype != np.uint16 or not scale:
            raise InputError(f"{path}: expected a uint16 PNG and depth_scale in {intrinsics.NAME}")
        depth = raw.astype(np.float32) / np.float32(scale)
    if depth.ndim != 2:
        raise InputError(f"{path}: expected depth of shape (H, W), got {depth.shape}")
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32("nan"))
