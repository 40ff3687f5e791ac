"""``CvBridge`` and ``create_cloud``: the distribution's own where it has them, else the same with OpenCV and NumPy.

ROS 2 from wheels has neither cv_bridge nor sensor_msgs_py, and in some distributions cv_bridge does not load beside
NumPy 2.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header

# Encoding: (NumPy dtype, channels, OpenCV's conversion to RGB, None if it is RGB).
ENCODINGS: dict[str, tuple[str, int, int | None]] = {
    "rgb8": ("u1", 3, None),
    "bgr8": ("u1", 3, cv2.COLOR_BGR2RGB),
    "rgba8": ("u1", 4, cv2.COLOR_RGBA2RGB),
    "bgra8": ("u1", 4, cv2.COLOR_BGRA2RGB),
    "mono8": ("u1", 1, cv2.COLOR_GRAY2RGB),
    "mono16": ("u2", 1, cv2.COLOR_GRAY2RGB),
    "bayer_rggb8": ("u1", 1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": ("u1", 1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": ("u1", 1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": ("u1", 1, cv2.COLOR_BayerGRBG2RGB),
    "yuv422": ("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": ("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
    "16UC1": ("u2", 1, None),
    "32FC1": ("f4", 1, None),
    "32FC3": ("f4", 3, None),
}
FIELD_TYPES = {PointField.FLOAT32: "f4", PointField.UINT32: "u4"}


class _CvBridge:
    """The part of cv_bridge's class that the node needs, with its arguments and results."""

    def imgmsg_to_cv2(self, img_msg: Image, desired_encoding: str = "passthrough") -> np.ndarray:
        """The image as (H, W) or (H, W, C); ``desired_encoding`` is ``passthrough`` or ``rgb8``."""
        code, channels, to_rgb = ENCODINGS[img_msg.encoding]
        dtype = np.dtype(code).newbyteorder(">" if img_msg.is_bigendian else "<")
        rows = np.frombuffer(img_msg.data, np.uint8)[: img_msg.height * img_msg.step].reshape(img_msg.height, -1)
        pixels = rows[:, : img_msg.width * channels * dtype.itemsize].view(dtype)
        if not dtype.isnative:
            pixels = pixels.astype(dtype.newbyteorder("="))
        if channels > 1:
            pixels = pixels.reshape(img_msg.height, img_msg.width, channels)
        if desired_encoding in ("passthrough", img_msg.encoding):
            return pixels
        if pixels.dtype == np.uint16:
            pixels = cv2.convertScaleAbs(pixels, alpha=255 / 65535)
        return pixels if to_rgb is None else cv2.cvtColor(pixels, to_rgb)

    def cv2_to_imgmsg(self, cvim: np.ndarray, encoding: str = "passthrough", header: Header | None = None) -> Image:
        """An Image message of a contiguous (H, W) or (H, W, C) array."""
        message = Image(height=cvim.shape[0], width=cvim.shape[1], encoding=encoding, step=cvim.nbytes // cvim.shape[0])
        message.header = header or Header()
        message.data = _bytes_of(cvim)
        return message


def _create_cloud(
    header: Header, fields: Sequence[PointField], points: np.ndarray, point_step: int | None = None
) -> PointCloud2:
    """An unorganized cloud of a structured array (N,) whose dtype is that of ``fields``."""
    expected = [(field.name, FIELD_TYPES[field.datatype]) for field in fields]
    assert points.dtype == np.dtype(expected), f"expected points of {expected}, got {points.dtype}"
    cloud = PointCloud2(header=header, height=1, width=len(points), fields=list(fields), is_dense=False)
    cloud.is_bigendian = sys.byteorder == "big"
    cloud.point_step = point_step or points.dtype.itemsize
    cloud.row_step = cloud.point_step * cloud.width
    cloud.data = _bytes_of(points)
    return cloud


def _bytes_of(values: np.ndarray) -> array:
    # A message checks every element of a list, but none of an array.array.
    data = array("B")
    data.frombytes(values.data.cast("B"))
    return data


def distribution_bridge() -> Any:
    """cv_bridge's class. Raises ImportError or AttributeError where it does not load."""
    from cv_bridge import CvBridge

    CvBridge().encoding_to_cvtype2("rgb8")
    return CvBridge


try:
    CvBridge = distribution_bridge()
except (ImportError, AttributeError):
    CvBridge = _CvBridge
try:
    from sensor_msgs_py.point_cloud2 import create_cloud
except ImportError:
    create_cloud = _create_cloud
