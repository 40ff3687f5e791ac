"""Compressed pictures, as sensor_msgs/CompressedImage holds them: color by jpeg, png and others, depth by png and RVL.

A few bytes can announce a picture of gigabytes. So only the wanted formats are decoded, and only after the size in
their header was checked.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import cv2
import numpy as np

from lotus2_ros.inference.picture_header import (
    GRAYSCALE,
    JPEG_MAGIC,
    PNG_HEADER,
    PNG_MAGIC,
    DecodeError,
    PictureHeader,
    check_whole,
    read_header,
)

# The header of compressed_depth_image_transport: a format, and a and b of depth = a / (value - b).
DEPTH_HEADER = struct.Struct("<iff")
DEPTH_ENCODINGS = ("16UC1", "32FC1")
RVL_DIGITS = 11  # of three bits in one number


def decode_color(format: str, data: bytes, formats: Sequence[str], max_megapixels: float) -> np.ndarray:
    """The picture as (H, W, 3) uint8 RGB, without the rotation that EXIF asks for: calibrations are of the sensor.

    ``format`` is that of CompressedImage, ``formats`` are the ones to decode. A Bayer mosaic (``bayer_rggb8; jpeg
    compressed``) is demosaiced. Raises DecodeError.
    """
    encoding = format.partition(";")[0].strip()
    if "compressedDepth" in format or encoding in DEPTH_ENCODINGS:
        raise DecodeError("format", f"expected a color image, got depth ({format!r})")
    header = read_header(data)
    if header.format not in formats:
        raise DecodeError("format", f"expected {' or '.join(formats)}, got {header.format} ({format!r})")
    _check_size(header.width, header.height, max_megapixels)
    pixels = _decode(data, header, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if encoding.startswith("bayer_"):
        return _demosaic(pixels, encoding)
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB if pixels.ndim == 2 else cv2.COLOR_BGR2RGB)


def decode_depth(format: str, data: bytes, max_megapixels: float) -> np.ndarray:
    """The depth as (H, W): uint16 millimeters, or float32 meters with NaN where there is none.

    ``format`` is that of CompressedImage: ``16UC1; compressedDepth png`` (also rvl, also 32FC1), or a 16-bit png as in
    ``16UC1; png compressed``. Raises DecodeError.
    """
    encoding, _, transport = (part.strip() for part in format.partition(";"))
    if "compressedDepth" not in format:
        return _depth_png(data, max_megapixels)
    if encoding not in DEPTH_ENCODINGS:
        raise DecodeError("format", f"expected {' or '.join(DEPTH_ENCODINGS)} before compressedDepth, got {format!r}")
    if len(data) <= DEPTH_HEADER.size:
        raise DecodeError("data", f"expected more than the {DEPTH_HEADER.size} bytes of its header, got {len(data)}")
    _, a, b = DEPTH_HEADER.unpack_from(data)
    data = data[DEPTH_HEADER.size :]
    if transport.endswith("rvl"):
        values = _depth_rvl(data, max_megapixels)
    else:
        values = _depth_png(data, max_megapixels, f" after a header of {DEPTH_HEADER.size} bytes")
    if encoding == "16UC1":
        return values
    with np.errstate(all="ignore"):
        return np.where(values > 0, np.float32(a) / (values.astype(np.float32) - np.float32(b)), np.float32("nan"))


def _check_size(width: int, height: int, max_megapixels: float) -> None:
    if width <= 0 or height <= 0:
        raise DecodeError("size", f"expected a picture of positive size, got {width}x{height}")
    if width * height > max_megapixels * 1e6:
        got = f"got {width}x{height}"
        raise DecodeError("size", f"expected at most {max_megapixels:g} megapixels (input.max_megapixels), {got}")


def _decode(data: bytes, header: PictureHeader, flags: int) -> np.ndarray:
    """The pixels as OpenCV reads them, (H, W) or (H, W, C)."""
    check_whole(header.format, data)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise DecodeError("data", f"{len(data)} bytes of {header.format} do not decode: {error.err}") from None
    if pixels is None or pixels.shape[:2] != (header.height, header.width):
        raise DecodeError("data", f"{len(data)} bytes of {header.format} do not decode")
    return pixels


def _demosaic(pixels: np.ndarray, encoding: str) -> np.ndarray:
    code = getattr(cv2, f"COLOR_Bayer{encoding[6:10].upper()}2RGB", None)
    if code is None:
        raise DecodeError("format", f"expected bayer_rggb8, bggr8, gbrg8 or grbg8, got {encoding!r}")
    if pixels.ndim == 3:
        if (pixels != pixels[..., :1]).any():
            return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)  # image_transport demosaiced it before compressing
        pixels = np.ascontiguousarray(pixels[..., 0])
    return cv2.cvtColor(pixels, code)


def _depth_png(data: bytes, max_megapixels: float, place: str = "") -> np.ndarray:
    """(H, W) uint16 of a grayscale png; ``place`` says where it was expected."""
    if not data.startswith(PNG_MAGIC):
        got = "jpeg, which loses depth" if data.startswith(JPEG_MAGIC) else f"{len(data)} bytes that are none"
        raise DecodeError("format", f"expected depth as a 16-bit png{place}, got {got}")
    header = read_header(data)
    _check_size(header.width, header.height, max_megapixels)
    _, _, _, bits, color_type = PNG_HEADER.unpack_from(data)
    if (bits, color_type) != (16, GRAYSCALE):
        raise DecodeError("format", f"expected depth as a 16-bit grayscale png, got {bits} bits, type {color_type}")
    return _decode(data, header, cv2.IMREAD_UNCHANGED)


def _depth_rvl(data: bytes, max_megapixels: float) -> np.ndarray:
    """(H, W) uint16 of RVL (Wilson 2017): runs of zeros and of differences, in digits of three bits and a flag."""
    if len(data) < 8:
        raise DecodeError("data", f"expected the size of an RVL image, got {len(data)} bytes")
    width, height = struct.unpack_from("<ii", data)
    _check_size(width, height, max_megapixels)
    words = np.frombuffer(data[8 : len(data) // 4 * 4], "<u4").astype(">u4").view(np.uint8)
    nibbles = np.stack((words >> 4, words & 15), axis=-1).ravel()  # of each word the highest first
    last = np.flatnonzero(nibbles < 8)
    first = np.concatenate(([0], last[:-1] + 1))
    digits = last - first + 1 if len(last) else last
    if len(last) == 0 or digits.max() > RVL_DIGITS:
        raise DecodeError("data", f"expected RVL, got {len(data)} bytes that are none")
    numbers = np.zeros(len(last), np.int64)
    for digit in range(int(digits.max())):
        has = digits > digit
        numbers[has] += (nibbles[first[has] + digit] & 7).astype(np.int64) << 3 * digit
    return _run_lengths(numbers, width * height).reshape(height, width)


def _run_lengths(numbers: np.ndarray, count: int) -> np.ndarray:
    """``count`` uint16 of RVL's numbers: how many zeros, how many others, their differences in zigzag order, again."""
    places: list[int] = []  # of the two lengths of each run
    listed, end = numbers.tolist(), len(numbers)  # a run may be of one pixel, and lists are faster one by one
    done = at = 0
    while done < count:
        zeros, others = listed[at : at + 2] if at + 2 <= end else (0, 0)
        if not zeros + others or done + zeros + others > count or at + 2 + others > end:
            raise DecodeError("data", f"expected RVL of {count} pixels, got {done} of them")
        places.append(at)
        done, at = done + zeros + others, at + 2 + others
    lengths = numbers[np.array(places)[:, None] + (0, 1)].ravel()
    measured = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    used = np.ones(at, bool)
    used[places] = used[np.array(places) + 1] = False
    differences = numbers[:at][used]
    values = np.zeros(count, np.uint16)
    values[measured] = np.cumsum((differences >> 1) ^ -(differences & 1)).astype(np.uint16)
    return values
