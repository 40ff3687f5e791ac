"""Depth images as bags hold them: plain, as PNG, or by image_transport's compressedDepth."""

from __future__ import annotations

from typing import Any

import numpy as np

from lotus2_ros.bags.frames import image_message
from lotus2_ros.config import InputConfig
from lotus2_ros.config.errors import InputError
from lotus2_ros.inference.decoding import DEPTH_ENCODINGS, decode_depth
from lotus2_ros.inference.picture_header import GRAYSCALE, PNG_HEADER, PNG_MAGIC, DecodeError


def is_depth(image: Any) -> bool:
    """Whether a sensor_msgs Image or CompressedImage holds depth and not color."""
    if not hasattr(image, "format"):
        return image.encoding in DEPTH_ENCODINGS
    if "compressedDepth" in image.format or image.format.startswith(DEPTH_ENCODINGS):
        return True
    if ";" in image.format:
        return False  # it begins with the encoding of a color image, mono16 for example
    start = bytes(image.data[: PNG_HEADER.size])
    # One channel of 16 bits: nobody writes that of a color camera without saying so.
    is_png = len(start) == PNG_HEADER.size and start.startswith(PNG_MAGIC)
    return is_png and PNG_HEADER.unpack(start)[3:] == (16, GRAYSCALE)


def as_depth_image(image: Any) -> Any:
    """A depth message as sensor_msgs/Image, 32FC1 or 16UC1. Raises InputError."""
    if not hasattr(image, "format"):
        return image
    try:
        depth = decode_depth(image.format, bytes(image.data), InputConfig().max_megapixels)
    except DecodeError as error:
        raise InputError(f"depth of format {image.format!r}: {error}") from None
    return image_message(depth, "16UC1" if depth.dtype == np.uint16 else "32FC1", image.header)
