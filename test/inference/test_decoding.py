"""Compressed color and depth, with the encoders of image_transport's plugins written down again."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotus2_ros.inference.decoding import decode_color, decode_depth
from lotus2_ros.inference.picture_header import DecodeError, read_header

HEIGHT, WIDTH = 24, 32
BOTH, LIMIT = ("jpeg", "png"), 100.0
RGB = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
RGB[..., 0] = 100 + 2 * np.arange(WIDTH)
RGB[..., 1] = 60 + 3 * np.arange(HEIGHT)[:, None]
RGB[..., 2] = 40
DEPTH = np.random.default_rng(0).integers(400, 5000, (HEIGHT, WIDTH)).astype(np.uint16)
DEPTH[3:6, 5:20] = 0


def encoded(suffix: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(suffix, pixels, [cv2.IMWRITE_JPEG_QUALITY, 98] if suffix == ".jpg" else [])[1].tobytes()


def mosaic(pattern: str) -> np.ndarray:
    channel = {"r": 0, "g": 1, "b": 2}
    return np.array(
        [[RGB[y, x, channel[pattern[2 * (y % 2) + x % 2]]] for x in range(WIDTH)] for y in range(HEIGHT)], np.uint8
    )


def rvl(values: np.ndarray) -> bytes:
    """compressed_depth_image_transport's RvlCodec::CompressRVL."""
    nibbles: list[int] = []

    def put(value: int) -> None:
        while True:
            nibbles.append(value & 7 | (8 if value >> 3 else 0))
            value >>= 3
            if not value:
                return

    flat, at, previous = [int(value) for value in values.ravel()], 0, 0
    while at < len(flat):
        start = at
        while at < len(flat) and not flat[at]:
            at += 1
        put(at - start)
        start = at
        while at < len(flat) and flat[at]:
            at += 1
        put(at - start)
        for value in flat[start:at]:
            delta, previous = value - previous, value
            put(delta << 1 ^ delta >> 31)
    nibbles += [0] * (-len(nibbles) % 8)
    words = [
        sum(nibble << 28 - 4 * i for i, nibble in enumerate(nibbles[w : w + 8])) for w in range(0, len(nibbles), 8)
    ]
    return struct.pack("<ii", values.shape[1], values.shape[0]) + struct.pack(f"<{len(words)}I", *words)


def announced(width: int, height: int) -> dict[str, bytes]:
    """A few bytes that say that they are a picture of this size."""
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr))
    sof = struct.pack(">HBHHB", 17, 8, height & 0xFFFF, width & 0xFFFF, 3) + bytes(9)
    bmp = b"BM" + bytes(12) + struct.pack("<Iii", 40, width, -height) + bytes(28)
    webp = b"RIFF" + bytes(4) + b"WEBPVP8X" + bytes(8)
    webp += max(0, width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return {"png": png, "jpeg": b"\xff\xd8\xff\xe0\x00\x04ab\xff\xff\xc2" + sof, "bmp": bmp, "webp": webp}


@pytest.mark.parametrize(
    ("suffix", "format", "tolerance"),
    [(".jpg", "jpeg", 6), (".png", "png", 0), (".bmp", "bmp", 0), (".webp", "webp", 12)],
)
def test_color_of_every_format(suffix, format, tolerance):
    data = encoded(suffix, RGB[..., ::-1])
    assert read_header(data) == (format, WIDTH, HEIGHT)
    pixels = decode_color(f"bgr8; {format} compressed bgr8", data, (format,), LIMIT)
    assert pixels.dtype == np.uint8 and np.abs(pixels.astype(int) - RGB).max() <= tolerance


def test_gray_and_16_bit_pictures_are_rgb():
    for pixels in (RGB[..., 0], RGB[..., 0].astype(np.uint16) * 256):
        assert np.array_equal(
            decode_color("mono8; png compressed", encoded(".png", pixels), BOTH, LIMIT), RGB[..., [0] * 3]
        )


@pytest.mark.parametrize("format", ["png", "jpeg", "bmp", "webp"])
def test_a_picture_that_announces_gigabytes_is_refused_by_its_header(format):
    data = announced(12000, 10000)[format]
    assert read_header(data) == (format, 12000, 10000)
    with pytest.raises(
        DecodeError, match=r"at most 100 megapixels \(input.max_megapixels\), got 12000x10000"
    ) as caught:
        decode_color(format, data, ("png", "jpeg", "bmp", "webp"), LIMIT)
    assert caught.value.reason == "size"


def test_the_limit_is_of_pixels():
    data = encoded(".png", RGB)
    assert decode_color("png", data, BOTH, WIDTH * HEIGHT / 1e6).shape == RGB.shape
    with pytest.raises(DecodeError, match="got 32x24"):
        decode_color("png", data, BOTH, (WIDTH * HEIGHT - 1) / 1e6)
    with pytest.raises(DecodeError, match="got 32x24"):
        decode_depth("16UC1; compressedDepth rvl", bytes(12) + rvl(DEPTH), (WIDTH * HEIGHT - 1) / 1e6)


GIF = b"GIF89a" + struct.pack("<HHBBB", 32000, 32000, 0x80, 0, 0) + bytes(6) + b",\0\0\0\0\0}\0}\0\x02\x02L\x01\0;"
JPEG, PNG = encoded(".jpg", RGB), encoded(".png", RGB)


@pytest.mark.parametrize(
    ("format", "data", "reason", "text"),
    [
        ("jpeg", GIF, "format", "got gif"),
        ("jpeg", b"", "data", "got no data"),
        ("h264", b"\0\0\0\1\x67" + bytes(40), "format", "unknown format"),
        ("bmp", encoded(".bmp", RGB), "format", r"expected jpeg or png, got bmp \('bmp'\)"),
        ("png", b"\x89PNG\r\n\x1a\n", "data", "first 8 bytes only"),
        ("png", announced(0, 5)["png"], "size", "got 0x5"),
        ("png", announced(50, 5)["png"], "data", "a whole png, got 33 bytes without its end"),
        ("png", PNG[: len(PNG) // 2], "data", "without its end"),
        ("png", PNG.replace(b"IDAT", b"tEXt"), "data", "png do not decode"),
        # OpenCV allocates 2 GB for such a chunk before it looks for it.
        ("png", PNG[:33] + b"\x7f\xff\xff\x00" + PNG[37:], "data", "without its end"),
        ("jpeg", JPEG[:-2], "data", "without its end"),
        ("jpeg", JPEG[: len(JPEG) // 2], "data", "without its end"),
        ("jpeg", b"\xff\xd8\xff\xd9", "data", "a size in its header, got none"),
        ("jpeg", JPEG[:-2] + 101 * b"\xff\xda\x00\x02" + b"\xff\xd9", "data", "at most 100 scans"),
        ("16UC1; compressedDepth png", encoded(".png", DEPTH), "format", "got depth"),
        ("16UC1; png compressed ", encoded(".png", DEPTH), "format", "got depth"),
        ("bayer_rgbg8; jpeg compressed", encoded(".png", RGB[..., 0]), "format", "'bayer_rgbg8'"),
    ],
)
def test_color_that_is_refused(format, data, reason, text):
    with pytest.raises(DecodeError, match=text) as caught:
        decode_color(format, data, BOTH, LIMIT)
    assert caught.value.reason == reason


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("stored", ["gray", "three equal channels", "demosaiced"])
def test_a_bayer_mosaic_behind_jpeg_is_demosaiced(pattern, suffix, stored):
    """image_transport compresses the mosaic as it is, or demosaics it first when it converts to bgr8."""
    gray = mosaic(pattern)
    pixels = {"gray": gray, "three equal channels": np.dstack([gray] * 3), "demosaiced": RGB[..., ::-1]}[stored]
    found = decode_color(f"bayer_{pattern}8; jpeg compressed bgr8", encoded(suffix, pixels), BOTH, LIMIT)
    error = np.abs(found.astype(int) - RGB)[2:-2, 2:-2]
    assert error.max() <= (14 if suffix == ".jpg" else 4)


@pytest.mark.parametrize("codec", ["", " png", " rvl"])
def test_compressed_depth_in_millimeters(codec):
    body = rvl(DEPTH) if codec == " rvl" else encoded(".png", DEPTH)
    depth = decode_depth(f"16UC1; compressedDepth{codec}", bytes(12) + body, LIMIT)
    assert depth.dtype == np.uint16 and np.array_equal(depth, DEPTH)


@pytest.mark.parametrize("codec", ["png", "rvl"])
def test_compressed_depth_in_meters_is_quantized_inverse_depth(codec):
    """depth = a / (value - b), as compressed_depth_image_transport's decoder has it; 0 is no measurement."""
    a, b = 1000.0, -20.0
    body = rvl(DEPTH) if codec == "rvl" else encoded(".png", DEPTH)
    depth = decode_depth(f"32FC1; compressedDepth {codec}", struct.pack("<iff", 0, a, b) + body, LIMIT)
    expected = np.where(DEPTH > 0, a / (DEPTH.astype(float) - b), np.nan)
    np.testing.assert_allclose(depth, expected, rtol=1e-6)


def test_depth_behind_a_plain_png():
    for format in ("16UC1; png compressed ", "png"):
        assert np.array_equal(decode_depth(format, encoded(".png", DEPTH), LIMIT), DEPTH)


@pytest.mark.parametrize(
    ("format", "data", "reason", "text"),
    [
        ("16UC1; jpeg compressed ", JPEG, "format", "16-bit png, got jpeg, which loses depth"),
        ("16UC1; png compressed", encoded(".png", RGB), "format", "got 8 bits, type 2"),
        ("compressedDepth", bytes(12) + encoded(".png", DEPTH), "format", "before compressedDepth, got 'compressedD"),
        ("16UC1; compressedDepth png", encoded(".png", DEPTH), "format", "16-bit png after a header of 12 bytes, got"),
        (
            "8UC1; compressedDepth png",
            bytes(12) + encoded(".png", DEPTH),
            "format",
            "before compressedDepth, got '8UC1;",
        ),
        ("16UC1; compressedDepth png", bytes(12), "data", "more than the 12 bytes of its header, got 12"),
        ("16UC1; compressedDepth rvl", bytes(14), "data", "got 2 bytes"),
        ("16UC1; compressedDepth rvl", bytes(20), "size", "got 0x0"),
        ("16UC1; compressedDepth rvl", bytes(12) + rvl(DEPTH)[:-40], "data", "expected RVL of 768 pixels"),
        ("16UC1; compressedDepth rvl", bytes(12) + struct.pack("<ii", 4, 4) + bytes(400), "data", "got 0 of them"),
        ("16UC1; compressedDepth rvl", bytes(12) + struct.pack("<ii", 4, 4) + b"\xff" * 80, "data", "that are none"),
        ("16UC1; compressedDepth rvl", bytes(12) + struct.pack("<ii", 4, -4) + b"\xff" * 80, "size", "got 4x-4"),
        ("16UC1; compressedDepth", bytes(12) + announced(20000, 20000)["png"], "size", "got 20000x20000"),
    ],
)
def test_depth_that_is_refused(format, data, reason, text):
    with pytest.raises(DecodeError, match=text) as caught:
        decode_depth(format, data, LIMIT)
    assert caught.value.reason == reason


def test_rvl_of_runs_of_one_pixel():
    """The longest list of runs, as a noisy sensor gives it."""
    depth = np.arange(60 * 80, dtype=np.uint16).reshape(60, 80) * (np.indices((60, 80)).sum(axis=0) % 2)
    for format in ("16UC1; compressedDepth rvl", " 16UC1 ; compressedDepth rvl "):
        assert np.array_equal(decode_depth(format, bytes(12) + rvl(depth), LIMIT), depth)


@given(st.lists(st.lists(st.one_of(st.just(0), st.integers(0, 65535)), min_size=5, max_size=5), min_size=1, max_size=8))
def test_rvl_brings_every_value_back(values):
    depth = np.array(values, np.uint16)
    assert np.array_equal(decode_depth("16UC1; compressedDepth rvl", bytes(12) + rvl(depth), LIMIT), depth)
