"""Image files, one RGB-D frame, video."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from lotus2_ros.bags.frames import (
    ASSUMED_FOV,
    COMPRESSED_IMAGE,
    RecordedFrame,
    Recording,
    camera_info_message,
    header,
    image_message,
    message,
)
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.inputs import InputError, read_rgb

FRAME_ID = "camera_optical_frame"
# Files carry no time: the first frame is at one second (a zero stamp means "unset" in ROS), then one every second.
START_NS = PERIOD_NS = 10**9


def is_image(path: Path) -> bool:
    return cv2.haveImageReader(str(path))


def assumed_camera(width: int, height: int, fov: float | None) -> Camera:
    return Camera.from_fov(width, height, ASSUMED_FOV if fov is None else fov)


def camera_statement(fov: float | None) -> str:
    if fov is None:
        return f"assumed: horizontal field of view {ASSUMED_FOV:g} degrees (no calibration; --fov says otherwise)"
    return f"horizontal field of view {fov:g} degrees, as given"


def open_images(paths: list[Path], fov: float | None) -> Recording:
    """Images in the given order, one per second."""

    def frames() -> Iterator[RecordedFrame]:
        for index, path in enumerate(paths):
            rgb = read_rgb(path)
            head = header(START_NS + index * PERIOD_NS, FRAME_ID)
            camera = assumed_camera(rgb.shape[1], rgb.shape[0], fov)
            yield RecordedFrame(
                START_NS + index * PERIOD_NS, image_message(rgb, "rgb8", head), camera_info_message(camera, head), None
            )

    name = str(paths[0]) if len(paths) == 1 else f"{len(paths)} images, {paths[0].name} to {paths[-1].name}"
    return Recording(name, camera_statement(fov), frames)


def open_rgbd(folder: Path) -> Recording:
    """One RGB-D frame: ``intrinsics.json``, ``rgb.*`` or ``left.*``, and optionally ``depth*.npy`` or ``depth*.png``.

    ``intrinsics.json`` has fx, fy, cx, cy (pixels, integer pixel centres), optionally ``distortion`` (plumb_bob), ``P``
    (3x4) and ``depth_scale``: a depth PNG holds uint16 units of 1 / depth_scale metres, 0 = none; an ``.npy`` metres.
    """
    calibration = read_calibration(folder / "intrinsics.json")
    image_file, depth_file = find_image(folder), find_depth(folder)

    def frames() -> Iterator[RecordedFrame]:
        rgb = read_rgb(image_file)
        head = header(START_NS, FRAME_ID)
        intrinsics = (float(calibration[key]) for key in ("fx", "fy", "cx", "cy"))
        camera = Camera.from_intrinsics(rgb.shape[1], rgb.shape[0], *intrinsics)
        info = camera_info_message(camera, head, calibration.get("distortion") or None, calibration.get("P"))
        depth = read_depth(depth_file, calibration.get("depth_scale")) if depth_file else None
        reference = None if depth is None else image_message(depth, "32FC1", head)
        yield RecordedFrame(START_NS, image_message(rgb, "rgb8", head), info, reference)

    return Recording(str(folder), "intrinsics.json", frames)


def find_image(folder: Path) -> Path:
    """The image of an RGB-D frame."""
    images = sorted(f for f in folder.iterdir() if f.stem in ("rgb", "left") and is_image(f))
    if not images:
        raise InputError(f"{folder}: expected rgb.* or left.* beside intrinsics.json")
    return images[-1]


def find_depth(folder: Path) -> Path | None:
    """The depth of an RGB-D frame, if it has one."""
    depths = sorted(f for f in folder.iterdir() if f.stem.startswith("depth") and f.suffix in (".npy", ".png"))
    return depths[0] if depths else None


def read_calibration(path: Path) -> dict:
    try:
        calibration = json.loads(path.read_text())
        missing = [key for key in ("fx", "fy", "cx", "cy") if key not in calibration]
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: not a JSON object ({error})") from None
    if missing:
        raise InputError(f"{path}: expected fx, fy, cx, cy, missing {', '.join(missing)}")
    return calibration


def read_depth(path: Path, scale: float | None) -> np.ndarray:
    """(H,W) float32 metres, NaN where there is no measurement."""
    if path.suffix == ".npy":
        depth = np.load(path, allow_pickle=False).astype(np.float32)
    else:
        raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if raw is None or raw.dtype != np.uint16 or not scale:
            raise InputError(f"{path}: expected a uint16 PNG and depth_scale in intrinsics.json")
        depth = raw.astype(np.float32) / np.float32(scale)
    if depth.ndim != 2:
        raise InputError(f"{path}: expected depth of shape (H, W), got {depth.shape}")
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32("nan"))


def open_video(path: Path, fov: float | None) -> Recording:
    """Every frame of a video, as JPEG: raw frames of a minute of video are gigabytes."""
    if not path.is_file() or not _capture(path).read()[0]:
        raise InputError(f"{path}: expected images, a folder, a video or a bag")

    def frames() -> Iterator[RecordedFrame]:
        capture = _capture(path)
        period_ns = round(10**9 / (capture.get(cv2.CAP_PROP_FPS) or 30.0))
        stamp = START_NS
        while True:
            ok, bgr = capture.read()
            if not ok:
                return
            head = header(stamp, FRAME_ID)
            jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
            image = message(COMPRESSED_IMAGE, header=head, format="bgr8; jpeg compressed bgr8", data=jpeg)
            camera = assumed_camera(bgr.shape[1], bgr.shape[0], fov)
            yield RecordedFrame(stamp, image, camera_info_message(camera, head), None)
            stamp += period_ns

    return Recording(str(path), camera_statement(fov), frames)


def _capture(path: Path) -> cv2.VideoCapture:
    # FFmpeg only: other back ends take any file name with digits for an image sequence, or open a GUI pipeline.
    return cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
