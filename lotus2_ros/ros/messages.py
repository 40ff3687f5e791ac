"""Images and calibrations as messages: to tensors and back. A message that cannot be used is one MessageError."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import cv2
import numpy as np
import torch
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from torch import Tensor

from lotus2_ros.config import InputConfig
from lotus2_ros.geometry.calibration import Calibration, SizeError
from lotus2_ros.geometry.camera import Camera, CameraError
from lotus2_ros.geometry.depth import valid_depth
from lotus2_ros.geometry.lens import LensError
from lotus2_ros.inference.decoding import DEPTH_ENCODINGS, decode_color, decode_depth
from lotus2_ros.inference.picture_header import DecodeError
from lotus2_ros.ros.bridge import ENCODINGS, CvBridge

# sensor_msgs has two names for each of these; older distributions only know the second.
ALIASES = {"uyvy": "yuv422", "yuyv": "yuv422_yuy2"}
COLOR_ENCODINGS = sorted([name for name in ENCODINGS if not name[0].isdigit()] + list(ALIASES) + ["nv12"])
MILLIMETERS = 1e-3
SATURATED = 65535  # in 16UC1: drivers send it, like 0, where they measured nothing
LONGEST_TEXT = 400  # characters of an error; a message's strings may have any length
INPUT = InputConfig()

_bridge = CvBridge()


class MessageError(ValueError):
    """A message that cannot be used, in one line. ``reason`` is the short name under which it is counted."""

    def __init__(self, reason: str, text: str) -> None:
        line = " ".join(text.split())
        super().__init__(line if len(line) <= LONGEST_TEXT else f"{line[:LONGEST_TEXT]} ...")
        self.reason = reason


def stamp_seconds(header: Header) -> float:
    return header.stamp.sec + header.stamp.nanosec * 1e-9


def stamp_nanoseconds(header: Header) -> int:
    """Exact, unlike seconds in a float."""
    return header.stamp.sec * 10**9 + header.stamp.nanosec


@contextmanager
def only_message_errors() -> Iterator[None]:
    """Make a MessageError of any error, because no message may end the node."""
    try:
        yield
    except MessageError:
        raise
    except Exception as error:  # one bad message must not end the node
        raise MessageError("unexpected", f"{type(error).__name__}: {error}") from error


def image_to_tensor(message: Image | CompressedImage, config: InputConfig = INPUT) -> Tensor:
    """An image of any known encoding, row step and byte order as (H, W, 3) uint8 RGB on the CPU.

    mono16 is scaled from 0..65535 to 0..255. Of a compressed image ``config`` limits the formats and the size. The
    tensor may share the message's memory. Raises MessageError.
    """
    if isinstance(message, CompressedImage):
        try:
            pixels = decode_color(message.format, bytes(message.data), config.compressed_formats, config.max_megapixels)
        except DecodeError as error:
            raise MessageError(f"image_{error.reason}", f"compressed image: {error}") from None
        return torch.from_numpy(pixels)
    if message.encoding == "nv12":
        return torch.from_numpy(_nv12(message))
    message = _plain(message, COLOR_ENCODINGS)
    return torch.from_numpy(_bridge.imgmsg_to_cv2(message, "rgb8"))


def depth_to_tensor(message: Image | CompressedImage, config: InputConfig = INPUT) -> Tensor:
    """A depth image as (H, W) float32 meters, NaN where nothing was measured.

    32FC1 is meters, 16UC1 millimeters with 0 and 65535 for no measurement (REP-118). A CompressedImage is
    ``compressedDepth`` or a 16-bit png. Raises MessageError, also when not one pixel is valid.
    """
    if isinstance(message, CompressedImage):
        try:
            values = decode_depth(message.format, bytes(message.data), config.max_megapixels)
        except DecodeError as error:
            raise MessageError(f"image_{error.reason}", f"compressed depth: {error}") from None
    else:
        values = _bridge.imgmsg_to_cv2(_plain(message, DEPTH_ENCODINGS), "passthrough")
    depth = torch.from_numpy(values.astype(np.float32))
    if values.dtype == np.uint16:
        depth = torch.where(depth < SATURATED, depth * MILLIMETERS, torch.nan)
    valid = valid_depth(depth)
    if not bool(valid.any()):
        nothing = "0 or 65535" if values.dtype == np.uint16 else "NaN, Inf or 0"
        raise MessageError("empty", f"expected a reference with some valid depth, got only {nothing}")
    return torch.where(valid, depth, torch.nan)


def camera_from_info(
    info: CameraInfo, height: int, width: int, device: torch.device | str, *, rectified: bool
) -> Camera:
    """The camera of an image of ``height`` x ``width``, rectified or as the lens distorts it.

    Raises MessageError when the sizes differ, the camera is not calibrated or its distortion model is unknown.
    """
    calibration = Calibration.of(info)
    if not calibration.is_calibrated(rectified=rectified):
        advice = "calibrate it (ros2 run camera_calibration cameracalibrator) or set input.fov"
        raise MessageError("camera_info_uncalibrated", f"camera_info: the camera is uncalibrated, K[0] is 0: {advice}")
    try:
        camera = calibration.camera(width, height, rectified=rectified)
    except (CameraError, LensError) as error:
        reason = {SizeError: "size", LensError: "distortion"}.get(type(error), "uncalibrated")
        raise MessageError(f"camera_info_{reason}", f"camera_info: {error}") from None
    return replace(camera, K=camera.K.to(device))


def tensor_to_image(pixels: Tensor, encoding: str, header: Header) -> Image:
    """(H, W) or (H, W, C) as an Image: float32 for 32FC1 and 32FC3, uint8 for rgb8."""
    return _bridge.cv2_to_imgmsg(pixels.contiguous().cpu().numpy(), encoding, header)


def _plain(message: Image, encodings: list[str] | tuple[str, ...]) -> Image:
    """The message, checked; a copy without padding and in native byte order if it was not so."""
    encoding = ALIASES.get(message.encoding, message.encoding)
    if message.encoding not in encodings:
        raise MessageError("encoding", f"expected an encoding of {', '.join(encodings)}, got {message.encoding!r}")
    code, channels, _ = ENCODINGS[encoding]
    row = message.width * channels * np.dtype(code).itemsize
    _check_size(message, row, message.height)
    if message.encoding.startswith(("uyvy", "yuyv", "yuv422")) and message.width % 2:
        raise MessageError("image_size", f"expected an even width for {message.encoding}, got {message.width}")
    if message.step == row and not message.is_bigendian and encoding == message.encoding:
        return message
    rows = np.frombuffer(message.data, np.uint8)[: message.height * message.step].reshape(message.height, message.step)
    pixels = rows[:, :row].copy().view(np.dtype(code).newbyteorder(">" if message.is_bigendian else "<"))
    plain = Image(header=message.header, height=message.height, width=message.width, encoding=encoding, step=row)
    plain.data = array("B", pixels.astype(np.dtype(code)).tobytes())
    return plain


def _check_size(message: Image, row: int, rows: int) -> None:
    """Raise MessageError unless ``rows`` rows of at least ``row`` bytes are there."""
    if message.width == 0 or message.height == 0:
        raise MessageError("image_size", f"expected an image of positive size, got {message.width}x{message.height}")
    if message.step < row:
        raise MessageError("image_step", f"expected a step of at least {row} bytes, got {message.step}")
    if len(message.data) < message.step * rows:
        raise MessageError(
            "image_data",
            f"expected {message.step * rows} bytes (step {message.step} x {rows}), got {len(message.data)}",
        )


def _nv12(message: Image) -> np.ndarray:
    """NV12: the rows of luma, then half as many of interleaved chroma. cv_bridge does not know it."""
    if message.width % 2 or message.height % 2:
        raise MessageError("image_size", f"expected even sides for nv12, got {message.width}x{message.height}")
    rows = message.height * 3 // 2
    _check_size(message, message.width, rows)
    planes = np.frombuffer(message.data, np.uint8)[: rows * message.step].reshape(rows, message.step)
    return cv2.cvtColor(np.ascontiguousarray(planes[:, : message.width]), cv2.COLOR_YUV2RGB_NV12)
