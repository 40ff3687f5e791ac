"""``intrinsics.json``: the calibration of the images beside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from lotus2_ros.bags.frames import camera_info_message
from lotus2_ros.config.errors import InputError
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.lens import PLUMB_BOB, Lens, LensError

NAME = "intrinsics.json"
NUMBERS = ("fx", "fy", "cx", "cy")


def read_calibration(path: Path) -> dict[str, Any]:
    """The JSON object, checked.

    It has fx, fy, cx, cy (pixels, integer pixel centers), and optionally ``width`` and ``height`` of the images that
    these hold for, ``distortion`` (plumb_bob), ``P`` (3x4) and ``depth_scale``. Raises InputError.
    """
    try:
        calibration = json.loads(path.read_text())
        missing = [key for key in NUMBERS if key not in calibration]
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: expected a JSON object, got something else ({error})") from None
    if missing:
        raise InputError(f"{path}: expected fx, fy, cx, cy, missing {', '.join(missing)}")
    for key in (*NUMBERS, "width", "height", "depth_scale"):
        value = calibration.get(key, 1)
        _check_number(path, key, value)
        if key not in ("cx", "cy") and value <= 0:
            raise InputError(f"{path}: expected a positive {key}, got {value!r}")
        if key in ("width", "height") and value != int(value):
            raise InputError(f"{path}: expected whole pixels as {key}, got {value!r}")
    if ("width" in calibration) != ("height" in calibration):
        raise InputError(f"{path}: expected width and height together, or neither")
    for key in ("distortion", "P"):
        values = calibration.get(key) or []
        if not isinstance(values, list):
            raise InputError(f"{path}: expected a list of numbers as {key}, got {values!r}")
        for value in values:
            _check_number(path, key, value)
    _check_lens(path, calibration.get("distortion") or [], calibration.get("P") or [])
    return calibration


def _check_number(path: Path, key: str, value: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not -sys.float_info.max <= value <= sys.float_info.max:
        raise InputError(f"{path}: expected numbers as {key}, got {value!r:.80}")


def _check_lens(path: Path, distortion: list[float], P: list[float]) -> None:
    try:
        Lens.of(PLUMB_BOB, distortion)
    except LensError as error:
        raise InputError(f"{path}: distortion: {error}") from None
    if P and (len(P) != 12 or P[0] <= 0 or P[5] <= 0):
        raise InputError(f"{path}: expected 12 numbers as P with positive focal lengths, got {P}")


def camera_info(calibration: dict[str, Any], width: int, height: int, head: Any) -> Any:
    """sensor_msgs/CameraInfo for an image of ``width`` x ``height``; K and P are scaled to its size.

    Raises InputError if the calibration is of images of other proportions.
    """
    own = calibration.get("width", width), calibration.get("height", height)
    # A resized side is rounded, so the proportions agree up to a pixel.
    if abs(width * own[1] - height * own[0]) > max(own):
        raise InputError(
            f"expected an image of the proportions of {NAME} ({own[0]} x {own[1]}), got {width} x {height}; "
            "K cannot be scaled to a cropped image"
        )
    camera = Camera.from_intrinsics(int(own[0]), int(own[1]), *(float(calibration[key]) for key in NUMBERS))
    projection = calibration.get("P")
    if projection:
        scaled = Camera.from_intrinsics(int(own[0]), int(own[1]), *(float(projection[i]) for i in (0, 5, 2, 6)))
        K = scaled.resize(width, height).K
        scale_x, scale_y = width / own[0], height / own[1]
        projection = [float(K[0, 0]), projection[1] * scale_x, float(K[0, 2]), projection[3] * scale_x,
                      0.0, float(K[1, 1]), float(K[1, 2]), projection[7] * scale_y,
                      0.0, 0.0, 1.0, projection[11]]  # fmt: skip
    return camera_info_message(
        camera.resize(width, height), head, calibration.get("distortion") or None, projection or None
    )


def statement(calibration: dict[str, Any]) -> str:
    """Where the calibration comes from, for people."""
    if "width" not in calibration:
        return NAME
    return f"{NAME}, of {calibration['width']} x {calibration['height']} images, scaled to the size of each image"
