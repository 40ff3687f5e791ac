"""Messages to tensors and back. What can be wrong with a message is said here, as one :class:`MessageError`."""

from __future__ import annotations

from array import array
from dataclasses import replace

import cv2
import numpy as np
import torch
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header
from torch import Tensor

from lotus2_ros.geometry.calibration import Calibration, SizeError
from lotus2_ros.geometry.camera import Camera, CameraError
from lotus2_ros.geometry.depth import valid_depth
from lotus2_ros.geometry.lens import LensError
from lotus2_ros.ros.bridge import ENCODINGS, CvBridge, create_cloud

# sensor_msgs has two names for each of these; older distributions only know the second.
ALIASES = {"uyvy": "yuv422", "yuyv": "yuv422_yuy2"}
COLOR_ENCODINGS = sorted([name for name in ENCODINGS if not name[0].isdigit()] + list(ALIASES) + ["nv12"])
DEPTH_ENCODINGS = ("16UC1", "32FC1")
MILLIMETRES = 1e-3
# rgb: the three bytes in one float32, as all of ROS packs them.
CLOUD_FIELDS = ("x", "y", "z", "rgb", "normal_x", "normal_y", "normal_z")
POINT_FIELDS = CLOUD_FIELDS[:3]

_bridge = CvBridge()


class MessageError(ValueError):
    """A message that cannot be used. ``reason`` is the short name under which it is counted."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def stamp_seconds(header: Header) -> float:
    return header.stamp.sec + header.stamp.nanosec * 1e-9


def image_to_tensor(message: Image | CompressedImage) -> Tensor:
    """An image of any known encoding, row step and byte order as (H, W, 3) uint8 RGB on the CPU.

    mono16 is scaled from 0..65535 to 0..255. The tensor may share the message's memory. Raises MessageError.
    """
    if isinstance(message, CompressedImage):
        return torch.from_numpy(_decompressed(message))
    if message.encoding == "nv12":
        return torch.from_numpy(_nv12(message))
    message = _plain(message, COLOR_ENCODINGS)
    return torch.from_numpy(_bridge.imgmsg_to_cv2(message, "rgb8"))


def depth_to_tensor(message: Image) -> Tensor:
    """A depth image (32FC1 metres or 16UC1 millimetres, 0 invalid; REP-118) as (H, W) float32 metres, NaN invalid.

    Raises MessageError, also when not one pixel is valid.
    """
    message = _plain(message, DEPTH_ENCODINGS)
    depth = torch.from_numpy(_bridge.imgmsg_to_cv2(message, "passthrough").astype(np.float32))
    if message.encoding == "16UC1":
        depth *= MILLIMETRES
    valid = valid_depth(depth)
    if not bool(valid.any()):
        raise MessageError("empty", "expected a reference with some valid depth, got only NaN, Inf or 0")
    return torch.where(valid, depth, torch.nan)


def calibration_from_info(info: CameraInfo) -> Calibration:
    roi = info.roi
    return Calibration(
        info.width, info.height, tuple(info.k), tuple(info.d), info.distortion_model, tuple(info.p),
        (info.binning_x, info.binning_y), (roi.x_offset, roi.y_offset, roi.width, roi.height),
    )  # fmt: skip


def camera_from_info(
    info: CameraInfo, height: int, width: int, device: torch.device | str, *, rectified: bool
) -> Camera:
    """The camera of an image of ``height`` x ``width``, which is rectified or as the lens draws it.

    Raises MessageError when the two do not fit, the camera is not calibrated, or its distortion model is not known.
    """
    try:
        camera = calibration_from_info(info).camera(width, height, rectified=rectified)
    except (CameraError, LensError) as error:
        reason = {SizeError: "size", LensError: "distortion"}.get(type(error), "uncalibrated")
        raise MessageError(f"camera_info_{reason}", f"camera_info: {error}") from None
    return replace(camera, K=camera.K.to(device))


def points_to_tensor(message: PointCloud2) -> Tensor:
    """The points of a cloud of any layout and byte order as (N, 3) float32 in its frame, without those that are NaN.

    x, y and z are FLOAT32 or FLOAT64. Raises MessageError, also when not one point is left.
    """
    found = {field.name: field for field in message.fields if field.name in POINT_FIELDS}
    kinds = {PointField.FLOAT32: "f4", PointField.FLOAT64: "f8"}
    if len(found) < 3 or any(field.datatype not in kinds for field in found.values()):
        got = ", ".join(f"{field.name} of datatype {field.datatype}" for field in message.fields) or "none"
        raise MessageError("fields", f"expected fields x, y and z of FLOAT32 or FLOAT64, got {got}")
    order = ">" if message.is_bigendian else "<"
    kind = np.dtype(
        {
            "names": list(found),
            "formats": [order + kinds[field.datatype] for field in found.values()],
            "offsets": [field.offset for field in found.values()],
        }
    )
    row, rows = message.point_step * message.width, message.height
    if message.point_step < kind.itemsize or message.row_step < row or len(message.data) < message.row_step * rows:
        raise MessageError(
            "data",
            f"expected {rows} rows of {message.width} points of at least {kind.itemsize} bytes, got point_step "
            f"{message.point_step}, row_step {message.row_step} and {len(message.data)} bytes",
        )
    steps = (message.row_step, message.point_step)
    cloud = np.ndarray((rows, message.width), kind, message.data, strides=steps)
    points = np.stack([cloud[name].astype(np.float32).reshape(-1) for name in POINT_FIELDS], axis=-1)
    points = points[np.isfinite(points).all(axis=-1)]
    if not len(points):
        raise MessageError("empty", f"expected a cloud with some points, got {rows * message.width}, all NaN or Inf")
    return torch.from_numpy(points)


def tensor_to_image(pixels: Tensor, encoding: str, header: Header) -> Image:
    """(H, W) or (H, W, C) as an Image: float32 for 32FC1 and 32FC3, uint8 for rgb8."""
    return _bridge.cv2_to_imgmsg(pixels.contiguous().cpu().numpy(), encoding, header)


def tensor_to_cloud(packed: Tensor, header: Header) -> PointCloud2:
    """A cloud of rows (H, W, 4 or 7) float32 of CLOUD_FIELDS, as organized_cloud makes them."""
    height, width, columns = packed.shape
    names = CLOUD_FIELDS[:columns]
    fields = [PointField(name=n, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, n in enumerate(names)]
    flat = packed.cpu().numpy().reshape(-1).view([(name, "f4") for name in names])
    message = create_cloud(header, fields, flat)
    # Organized by hand: create_cloud reads the shape of a two-dimensional array as (width, height).
    message.height, message.width, message.row_step = height, width, message.point_step * width
    return message


def _plain(message: Image, encodings: list[str] | tuple[str, ...]) -> Image:
    """The message, checked; copied without padding and in native byte order if it was not so."""
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
    if message.width == 0 or message.height == 0:
        raise MessageError("image_size", f"expected an image of some size, got {message.width}x{message.height}")
    if message.step < row:
        raise MessageError("image_step", f"expected a step of at least {row} bytes, got {message.step}")
    if len(message.data) < message.step * rows:
        raise MessageError(
            "image_data",
            f"expected {message.step * rows} bytes (step {message.step} x {rows}), got {len(message.data)}",
        )


def _nv12(message: Image) -> np.ndarray:
    """NV12: height rows of luma, then half as many of interleaved chroma; unknown to cv_bridge."""
    if message.width % 2 or message.height % 2:
        raise MessageError("image_size", f"expected even sides for nv12, got {message.width}x{message.height}")
    rows = message.height * 3 // 2
    _check_size(message, message.width, rows)
    planes = np.frombuffer(message.data, np.uint8)[: rows * message.step].reshape(rows, message.step)
    return cv2.cvtColor(np.ascontiguousarray(planes[:, : message.width]), cv2.COLOR_YUV2RGB_NV12)


def _decompressed(message: CompressedImage) -> np.ndarray:
    if not len(message.data):
        raise MessageError("image_data", f"expected a compressed image ({message.format!r}), got no data")
    try:
        return _bridge.compressed_imgmsg_to_cv2(message, "rgb8")
    except Exception as error:  # cv_bridge and OpenCV raise different classes for a picture that does not decode
        raise MessageError("image_data", f"{message.format!r} image of {len(message.data)} bytes: {error}") from None
