"""Video files."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2

from lotus2_ros.bags.frames import (
    COMPRESSED_IMAGE,
    FRAME_ID,
    START_NS,
    RecordedFrame,
    Recording,
    header,
    message,
)
from lotus2_ros.config.errors import InputError
from lotus2_ros.inference.image_files import opencv_name

ASSUMED_RATE = 30.0  # Hz, of a video that says nothing


def open_video(path: Path, camera: str, camera_info: Callable[[int, int, Any], Any]) -> Recording:
    """Every frame of a video at its own time, as JPEG: raw frames of a minute of video are gigabytes.

    ``camera`` says where the calibration comes from; ``camera_info`` makes it of a width, a height and a header.
    """
    size = path.stat().st_size if path.is_file() else 0  # neither a device nor a pipe: reading it may never end
    capture = _capture(path) if size else None
    if capture is None or not (capture.isOpened() or _is_video(path)):
        got = f"{size} bytes of another kind" if size else "no content"
        raise InputError(f"{path}: expected images, a folder, a video or a bag, got {got}")
    if not capture.isOpened():
        raise InputError(
            f"{path}: expected a video that OpenCV can open, got damaged data or a truncated file; copy it again, or "
            f"try ffmpeg -i {path.name} -c:v libx264 {path.stem}_h264.mp4"
        )
    if not capture.read()[0]:
        raise InputError(
            f"{path}: expected a video that OpenCV can decode, got the codec {_codec(capture)} or damaged data; "
            f"convert it: ffmpeg -i {path.name} -c:v libx264 {path.stem}_h264.mp4"
        )

    count = round(capture.get(cv2.CAP_PROP_FRAME_COUNT))  # by the header; 0 or less where it does not say

    def frames() -> Iterator[RecordedFrame]:
        capture = _capture(path)
        period_ns = round(10**9 / (capture.get(cv2.CAP_PROP_FPS) or ASSUMED_RATE))
        stamp, first_ms = START_NS - period_ns, None
        while True:
            ok, bgr = capture.read()
            if not ok:
                return
            # Frames of a variable rate have times of their own; where there are none the nominal rate is all there is.
            shown_ms = capture.get(cv2.CAP_PROP_POS_MSEC)
            first_ms = shown_ms if first_ms is None else first_ms
            own = START_NS + round((shown_ms - first_ms) * 1e6)
            stamp = own if own > stamp else stamp + period_ns
            head = header(stamp, FRAME_ID)
            jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
            image = message(COMPRESSED_IMAGE, header=head, format="bgr8; jpeg compressed bgr8", data=jpeg)
            yield RecordedFrame(stamp, image, camera_info(bgr.shape[1], bgr.shape[0], head), None)

    return Recording(str(path), camera, frames, count=count if count > 0 else None)


def _capture(path: Path) -> cv2.VideoCapture:
    # FFmpeg only: other back ends take any file name with digits for an image sequence, or open a GUI pipeline.
    with opencv_name(path) as name:
        return cv2.VideoCapture(name, cv2.CAP_FFMPEG)


def _is_video(path: Path) -> bool:
    return (mimetypes.guess_type(path.name)[0] or "").startswith("video/")


def _codec(capture: cv2.VideoCapture) -> str:
    code = round(capture.get(cv2.CAP_PROP_FOURCC))
    return code.to_bytes(4, "little", signed=True).decode("ascii", "replace").strip("\0") or "unknown"
