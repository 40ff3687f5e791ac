"""Image files: which files are images, and their pixels."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from lotus2_ros.config.errors import InputError, first_line
from lotus2_ros.inference.picture_header import JPEG_MAGIC, PNG_MAGIC, DecodeError, check_whole, read_header

# The first bytes of a HEIC file: a box "ftyp" with one of these brands. FFmpeg takes it for a video of tiles.
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
MAX_MEGAPIXELS = 200  # the largest sensors of phones
HEADER_BYTES = 2**20  # a JPEG's size comes after its metadata


def is_image(path: Path) -> bool:
    """Whether the file begins as an image; it may still be damaged."""
    if _is_heic(path):
        return True
    with opencv_name(path) as name:
        return cv2.haveImageReader(name)


@contextmanager
def opencv_name(path: Path) -> Iterator[str]:
    """A name of the file for OpenCV, which crashes on one that is not UTF-8."""
    name = str(path)
    if os.fsencode(path).decode("utf-8", "replace") == name:
        yield name
    else:
        with path.open("rb") as file:
            yield f"/proc/self/fd/{file.fileno()}"


def read_rgb(path: str | os.PathLike[str]) -> np.ndarray:
    """The image file as (H, W, 3) uint8 RGB, turned as its EXIF orientation says.

    Raises FileNotFoundError, or InputError on a file that cannot be decoded.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image file")
    _check(path)
    try:
        if _is_heic(path):
            return _read_heic(path)
        with opencv_name(path) as name:
            image = cv2.imread(name, cv2.IMREAD_COLOR)
    except (cv2.error, OSError, ValueError, SyntaxError, MemoryError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be decoded ({first_line(error)})") from None
    if image is None:
        raise InputError(f"{path}: not an image that OpenCV reads (truncated?)")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _is_heic(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(12)
    return start[4:8] == b"ftyp" and start[8:12] in HEIC_BRANDS


def _check(path: Path) -> None:
    """By its bytes alone: a small file may announce gigabytes of pixels, and OpenCV paints what is missing gray.

    Raises InputError.
    """
    with path.open("rb") as file:
        start = file.read(HEADER_BYTES)
        rest = file.read() if start.startswith((PNG_MAGIC, JPEG_MAGIC)) else b""
    try:
        if start.startswith(b"GIF8"):
            kind, (width, height) = "gif", struct.unpack_from("<HH", start, 6)
        else:
            kind, width, height = read_header(start)
    except (DecodeError, struct.error):
        return  # a format whose size OpenCV checks, or damage: the decoder says it
    if width * height > MAX_MEGAPIXELS * 1e6:
        raise InputError(
            f"{path}: expected at most {MAX_MEGAPIXELS} megapixels, got {width} x {height}; resize it first"
        )
    try:
        check_whole(kind, start + rest)
    except DecodeError as error:
        raise InputError(f"{path}: not an image that OpenCV reads (truncated?): {error}") from None


def _read_heic(path: Path) -> np.ndarray:
    try:
        import pillow_heif
    except ImportError:
        raise InputError(f"{path}: HEIC needs pillow-heif (pip install pillow-heif), or convert it to JPEG") from None
    photo = pillow_heif.open_heif(path, convert_hdr_to_8bit=True)
    pixels = np.asarray(photo)
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    return np.ascontiguousarray(pixels[..., :3])
