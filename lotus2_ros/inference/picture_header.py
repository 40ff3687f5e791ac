"""Pictures by their bytes alone: format, size, and whether all of them is there. Nothing is decoded."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from lotus2_ros.config.parameters import COMPRESSED_FORMATS

PNG_MAGIC, JPEG_MAGIC = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
PNG_HEADER = struct.Struct(">8x4x4sIIBB")  # b"IHDR", width, height, bits, color type
GRAYSCALE = 0
# Of a jpeg's segment; within the pixels FF is followed by 00, or by the number of a restart.
JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
JPEG_STANDALONE = (0x01, 0xD8, 0xD9)  # markers without a length
END, SCAN = 0xD9, 0xDA
# A progressive jpeg may have any number of scans, each of which visits every pixel. Encoders write about ten.
MAX_SCANS = 100


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


def read_header(data: bytes) -> PictureHeader:
    """Format and size of a picture, by its first bytes. Raises DecodeError, also for formats that are never decoded."""
    try:
        if data[:8] == PNG_MAGIC:
            name, width, height, _, _ = PNG_HEADER.unpack_from(data)
            if name != b"IHDR":
                raise _no_size("png")
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
    for marker, at in _jpeg_segments(data):
        if marker in (END, SCAN):  # pixels without a frame
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 3)
            return width, height
    raise _no_size("jpeg")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Each marker and the offset behind it."""
    at = 2
    while found := JPEG_MARKER.search(data, at):
        at = found.end()
        yield data[at - 1], at
        if data[at - 1] not in JPEG_STANDALONE:
            at += int.from_bytes(data[at : at + 2], "big")


def _webp_size(data: bytes) -> tuple[int, int]:
    chunk = data[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _no_size(format: str) -> DecodeError:
    return DecodeError("data", f"expected a {format} with a size in its header, got none")


def check_whole(format: str, data: bytes) -> None:
    """Raise DecodeError for a truncated jpeg, whose missing part OpenCV paints gray, or one of too many scans; and for
    a png whose chunks go on beyond its end, because OpenCV allocates whatever length a chunk announces."""
    if format == "jpeg":
        _check_jpeg(data)
    elif format == "png":
        _check_png(data)


def _check_jpeg(data: bytes) -> None:
    scans = 0
    for marker, _ in _jpeg_segments(data):
        scans += marker == SCAN
        if scans > MAX_SCANS:
            raise DecodeError("data", f"expected at most {MAX_SCANS} scans in a jpeg, got more")
        if marker == END:
            return
    raise DecodeError("data", f"expected a whole jpeg, got {len(data)} bytes without its end")


def _check_png(data: bytes) -> None:
    at = len(PNG_MAGIC)
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if name == b"IEND" and at <= len(data):
            return
    raise DecodeError("data", f"expected a whole png, got {len(data)} bytes without its end")
