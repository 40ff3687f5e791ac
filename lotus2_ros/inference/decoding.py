"""Compressed pictures, as sensor_msgs/CompressedImage holds them: color by jpeg, png and others, depth by png and RVL.

A few bytes can announce a picture of gigabytes. So only the wanted formats are decoded, and only after the size in
their header was checked.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import cv2
import numpy as np

from lotus2_ros.config.parameters import COMPRESSED_FORMATS

PNG_MAGIC, JPEG_MAGIC = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
PNG_HEADER = struct.Struct(">8x4x4sIIBB")  # b"IHDR", width, height, bits, color type
GRAYSCALE = 0
# What compressed_depth_image_transport puts before its data: a format, and a and b of depth = a / (value - b).
DEPTH_HEADER = struct.Struct("<iff")
DEPTH_ENCODINGS = ("16UC1", "32FC1")
# A progressive jpeg may have any number of scans, each of which visits every pixel. Encoders write about ten.
MAX_SCANS = 100
RVL_DIGITS = 11  # of three bits in one number


class DecodeError(ValueError):
    """A picture that is not decoded. ``reason`` is one word: format, size or data."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class PictureHeader(NamedTuple):
    """The start of a picture file: its format and its size in pixels."""

    format: str
    width: int
    height: int


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
    encoding, _, transport = format.partition(";")
    if "compressedDepth" not in transport:
        return _depth_png(data, max_megapixels)
    if encoding not in DEPTH_ENCODINGS:
        raise DecodeError("format", f"expected {' or '.join(DEPTH_ENCODINGS)} before compressedDepth, got {format!r}")
    if len(data) <= DEPTH_HEADER.size:
        raise DecodeError("data", f"expected more than the {DEPTH_HEADER.size} bytes of its header, got {len(data)}")
    _, a, b = DEPTH_HEADER.unpack_from(data)
    data = data[DEPTH_HEADER.size :]
    values = _depth_rvl(data, max_megapixels) if transport.strip().endswith("rvl") else _depth_png(data, max_megapixels)
    if encoding == "16UC1":
        return values
    with np.errstate(all="ignore"):
        return np.where(values > 0, np.float32(a) / (values.astype(np.float32) - np.float32(b)), np.float32("nan"))


def read_header(data: bytes) -> PictureHeader:
    """Format and size of a picture, by its first bytes. Raises DecodeError, also for formats that are never decoded."""
    try:
        if data[:8] == PNG_MAGIC:
            name, width, height, _, _ = PNG_HEADER.unpack_from(data)
            if name != b"IHDR":
                _no_size("png")
            return PictureHeader("png", width, height)
        if data[:3] == JPEG_MAGIC:
            return PictureHeader("jpeg", *_jpeg_size(data))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return PictureHeader("webp", *_webp_size(data))
        if data[:2] == b"BM":
            width, height = struct.unpack_from("<ii" if data[14] >= 40 else "<HH", data, 18)
            return PictureHeader("bmp", width, abs(height))
    except (struct.error, IndexError):
        raise DecodeError("data", f"expected a picture, got its first {len(data)} bytes only") from None
    known = "gif" if data[:4] == b"GIF8" else "data of an unknown format"
    raise DecodeError(
        "format" if data else "data", f"expected {', '.join(COMPRESSED_FORMATS)}, got {known if data else 'no data'}"
    )


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height in the first start-of-frame segment."""
    at = 2
    while True:
        at = data.find(b"\xff", at)
        if at < 0:
            _no_size("jpeg")
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # without a length
            at += 2
        elif marker in (0xD9, 0xDA):  # the end of the file, or pixels without a frame
            _no_size("jpeg")
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]


def _webp_size(data: bytes) -> tuple[int, int]:
    chunk = data[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _no_size(format: str) -> NoReturn:
    raise DecodeError("data", f"expected a {format} with a size in its header, got none")


def _check_size(width: int, height: int, max_megapixels: float) -> None:
    if width <= 0 or height <= 0:
        raise DecodeError("size", f"expected a picture of positive size, got {width}x{height}")
    if width * height > max_megapixels * 1e6:
        got = f"got {width}x{height}"
        raise DecodeError("size", f"expected at most {max_megapixels:g} megapixels (input.max_megapixels), {got}")


def _decode(data: bytes, header: PictureHeader, flags: int) -> np.ndarray:
    """The pixels as OpenCV reads them, (H, W) or (H, W, C)."""
    if header.format == "jpeg":
        _check_jpeg(data)
    if header.format == "png":
        check_png(data)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise DecodeError("data", f"{len(data)} bytes of {header.format} do not decode: {error.err}") from None
    if pixels is None or pixels.shape[:2] != (header.height, header.width):
        raise DecodeError("data", f"{len(data)} bytes of {header.format} do not decode")
    return pixels


def _check_jpeg(data: bytes) -> None:
    """Raise DecodeError for a truncated jpeg, whose missing part OpenCV paints gray, and for one of too many scans."""
    if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise DecodeError("data", f"expected a whole jpeg, got {len(data)} bytes without its end")
    if data.count(b"\xff\xda") > MAX_SCANS:
        raise DecodeError("data", f"expected at most {MAX_SCANS} scans in a jpeg, got more")


def check_png(data: bytes) -> None:
    """Raise DecodeError unless every chunk lies within the data: OpenCV allocates whatever length a chunk announces."""
    at = len(PNG_MAGIC)
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if name == b"IEND" and at <= len(data):
            return
    raise DecodeError("data", f"expected a whole png, got {len(data)} bytes without its end")


def _demosaic(pixels: np.ndarray, encoding: str) -> np.ndarray:
    code = getattr(cv2, f"COLOR_Bayer{encoding[6:10].upper()}2RGB", None)
    if code is None:
        raise DecodeError("format", f"expected bayer_rggb8, bggr8, gbrg8 or grbg8, got {encoding!r}")
    if pixels.ndim == 3:
        if (pixels != pixels[..., :1]).any():
            return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)  # image_transport demosaiced it before compressing
        pixels = np.ascontiguousarray(pixels[..., 0])
    return cv2.cvtColor(pixels, code)


def _depth_png(data: bytes, max_megapixels: float) -> np.ndarray:
    """(H, W) uint16 of a grayscale png."""
    header = read_header(data)
    if header.format != "png":
        raise DecodeError("format", f"expected depth as a 16-bit png, got {header.format}, which loses depth")
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
    words = np.frombuffer(data[8 : len(data) // 4 * 4], "<u4")
    nibbles = (words[:, None] >> np.arange(28, -1, -4, dtype=np.uint32) & 15).astype(np.uint8).ravel()
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
    measured = np.zeros(count, bool)
    used = np.zeros(len(numbers), bool)
    done = at = 0
    while done < count:
        zeros, others = (int(n) for n in numbers[at : at + 2]) if at + 2 <= len(numbers) else (0, 0)
        if not zeros + others or done + zeros + others > count or at + 2 + others > len(numbers):
            raise DecodeError("data", f"expected RVL of {count} pixels, got {done} of them")
        measured[done + zeros : done + zeros + others] = True
        used[at + 2 : at + 2 + others] = True
        done, at = done + zeros + others, at + 2 + others
    differences = numbers[used]
    values = np.zeros(count, np.uint16)
    values[measured] = np.cumsum((differences >> 1) ^ -(differences & 1)).astype(np.uint16)
    return values
