"""Good messages with a few fields changed: boundary values, random bytes, a cut or longer payload."""

from __future__ import annotations

import math
import random
import struct
from array import array
from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField, RegionOfInterest
from torch import Tensor

from lotus2_ros.config import InputConfig
from lotus2_ros.geometry.calibration import Calibration
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.ros.bridge import ENCODINGS
from lotus2_ros.ros.clouds import points_to_tensor
from lotus2_ros.ros.messages import (
    ALIASES,
    camera_from_info,
    depth_to_tensor,
    image_to_tensor,
)

HEIGHT, WIDTH = 12, 16
INTEGERS = [0, 1, 2, 3, 2**15, 2**16 - 1, 2**16, 2**31 - 4, 2**31 - 1, 2**31, 2**32 - 8, 2**32 - 1]
FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-300, 1e300, -1e300, 1e30, math.nan, math.inf, -math.inf]
TEXTS = ["", "rgb8", "mono16", "nv12", "64FC1", "\x00", "é" * 50, "x" * 10_000, "16UC1; compressedDepth rvl", "; ;"]
CONFIG = InputConfig(compressed_formats=("jpeg", "png", "webp", "bmp"), max_megapixels=1.0)


class Case(NamedTuple):
    """A message and the conversion to try on it."""

    kind: str
    message: object
    convert: Callable[[], object]


def cases(rng: random.Random) -> Iterator[Case]:
    """Mutated messages without end; the same for the same state of ``rng``."""
    kinds = (image_case, compressed_case, info_case, cloud_case)
    while True:
        yield rng.choice(kinds)(rng)


def image_case(rng: random.Random) -> Case:
    encoding = rng.choice([*ENCODINGS, *ALIASES, "nv12"])
    code, channels, _ = ENCODINGS.get(ALIASES.get(encoding, encoding), ("u1", 1, None))
    step = WIDTH * channels * np.dtype(code).itemsize + rng.choice([0, 0, 3])
    rows = HEIGHT * 3 // 2 if encoding == "nv12" else HEIGHT
    message = Image(height=HEIGHT, width=WIDTH, encoding=encoding, step=step, is_bigendian=rng.randrange(2))
    message.data = array("B", rng.randbytes(rows * step))
    for _ in range(rng.randrange(4)):
        field = rng.choice(["height", "width", "step", "is_bigendian", "encoding", "data"])
        if field == "data":
            message.data = array("B", mutated_bytes(rng, bytes(message.data)))
        elif field == "encoding":
            message.encoding = rng.choice([*ENCODINGS, *ALIASES, *TEXTS])
        elif field == "is_bigendian":
            message.is_bigendian = rng.choice([0, 1, 255])
        else:
            setattr(message, field, integer(rng, getattr(message, field)))
    convert = depth_to_tensor if message.encoding in ("16UC1", "32FC1") else image_to_tensor
    return Case("Image", message, lambda: convert(message, CONFIG))


def pictures() -> dict[str, bytes]:
    """Good payloads by what they are, for the mutations to start from."""
    generator = np.random.default_rng(0)
    color = generator.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    depth = generator.integers(0, 5000, (HEIGHT, WIDTH)).astype(np.uint16)
    files = {name: cv2.imencode(f".{name}", color)[1].tobytes() for name in ("jpg", "png", "webp", "bmp")}
    progressive = cv2.imencode(".jpg", color, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    png = cv2.imencode(".png", depth)[1].tobytes()
    rvl = struct.pack("<ii", WIDTH, HEIGHT) + generator.integers(0, 256, 400, np.uint8).tobytes()
    gif = b"GIF89a" + struct.pack("<HHBBB", 32000, 32000, 0x80, 0, 0) + bytes(6)
    quantized = struct.pack("<iff", 0, 1000.0, 0.5)
    return {
        **files, "progressive": progressive, "gif": gif, "depth": png, "compressedDepth": quantized + png,
        "rvl": quantized + rvl,
    }  # fmt: skip


PICTURES = pictures()
FORMATS = [
    "jpeg", "png", "rgb8; jpeg compressed bgr8", "bayer_rggb8; jpeg compressed ", "bayer_xxxx8; png compressed",
    "16UC1; compressedDepth png", "32FC1; compressedDepth png", "16UC1; compressedDepth rvl",
    "32FC1; compressedDepth rvl", "16UC1; png compressed ", *TEXTS,
]  # fmt: skip


def compressed_case(rng: random.Random) -> Case:
    name, data = rng.choice(list(PICTURES.items()))
    for _ in range(rng.randrange(4)):
        data = mutated_bytes(rng, data)
    depth = {"depth": "16UC1; png compressed ", "compressedDepth": "32FC1; compressedDepth png"}
    depth["rvl"] = "16UC1; compressedDepth rvl"
    convert = depth_to_tensor if name in depth else image_to_tensor
    format = depth.get(name, "bgr8; jpeg compressed bgr8")
    if rng.random() < 0.3:
        convert, format = rng.choice([image_to_tensor, depth_to_tensor]), rng.choice(FORMATS)
    message = CompressedImage(format=format, data=array("B", data))
    return Case("CompressedImage", message, lambda: convert(message, CONFIG))


def info_case(rng: random.Random) -> Case:
    k = [20.0, 0.0, 7.0, 0.0, 21.0, 5.0, 0.0, 0.0, 1.0]
    p = [*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0]
    model = rng.choice(["", "plumb_bob", "rational_polynomial", "equidistant"])
    d = [rng.uniform(-0.2, 0.2) for _ in range(rng.choice([0, 4, 5, 8, 12, 14]))]
    message = CameraInfo(height=HEIGHT, width=WIDTH, distortion_model=model, d=d, k=k, p=p)
    for _ in range(rng.randrange(5)):
        field = rng.choice(["size", "model", "d", "d", "k", "k", "p", "p", "binning", "roi"])
        if field in ("d", "k", "p"):
            values = getattr(message, field)
            if len(values):
                values[rng.randrange(len(values))] = floating(rng)
        elif field == "model":
            message.distortion_model = rng.choice(["", "plumb_bob", "rational_polynomial", "equidistant", *TEXTS])
        elif field == "binning":
            message.binning_x, message.binning_y = integer(rng, 2), rng.choice([0, 1, 2, 2**32 - 1])
        elif field == "roi":
            x, y, width, height = (integer(rng, value) for value in (1, 2, WIDTH, HEIGHT))
            message.roi = RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height)
        else:
            message.height, message.width = integer(rng, HEIGHT), integer(rng, WIDTH)
    rectified = rng.random() < 0.5

    def convert() -> Camera:
        camera = camera_from_info(message, HEIGHT, WIDTH, "cpu", rectified=rectified)
        Calibration.of(message).doubt(rectified=rectified)
        assert tuple(camera.rays.shape) == (HEIGHT, WIDTH, 3)
        camera.project(camera.rays)
        return camera

    return Case("CameraInfo", message, convert)


def cloud_case(rng: random.Random) -> Case:
    wide = rng.random() < 0.3
    size, datatype = (8, PointField.FLOAT64) if wide else (4, PointField.FLOAT32)
    step, width, height = 3 * size + rng.choice([0, 1, 4]), 6, rng.choice([1, 3])
    message = PointCloud2(height=height, width=width, is_bigendian=rng.random() < 0.2, point_step=step)
    message.row_step = step * width + rng.choice([0, 0, 5])
    message.fields = [PointField(name=n, offset=size * i, datatype=datatype, count=1) for i, n in enumerate("xyz")]
    message.data = array("B", rng.randbytes(message.row_step * height))
    for _ in range(rng.randrange(5)):
        name = rng.choice(["height", "width", "point_step", "row_step", "field", "field", "fields", "data"])
        if name == "data":
            message.data = array("B", mutated_bytes(rng, bytes(message.data)))
        elif name == "fields":
            message.fields = [rng.choice(message.fields) for _ in message.fields]
        elif name == "field":
            field = rng.choice(message.fields)
            message.fields = [
                PointField(
                    name=rng.choice([field.name, field.name, "x", "", "rgb"]),
                    offset=integer(rng, field.offset),
                    datatype=rng.choice([field.datatype, rng.randrange(256)]),
                    count=rng.choice([field.count, *INTEGERS]),
                )
                if other is field
                else other
                for other in message.fields
            ]
        else:
            setattr(message, name, integer(rng, getattr(message, name)))
    return Case("PointCloud2", message, lambda: points_to_tensor(message))


def integer(rng: random.Random, value: int) -> int:
    """A uint32 near ``value`` or at a boundary."""
    return min(2**32 - 1, max(0, rng.choice([value + rng.randint(-9, 9), value * 2, value // 2, rng.choice(INTEGERS)])))


def floating(rng: random.Random) -> float:
    return rng.choice([rng.uniform(-2, 2), rng.uniform(-1e4, 1e4), rng.choice(FLOATS)])


def mutated_bytes(rng: random.Random, data: bytes) -> bytes:
    """Some bytes changed, cut out, repeated or appended."""
    at = rng.randrange(len(data) + 1)
    length = rng.choice([1, 2, 4, 16])
    how = rng.randrange(5)
    if how == 0:
        return data[:at]
    if how == 1:
        return data[:at] + rng.randbytes(length) + data[at + length :]
    if how == 2:
        return data[:at] + data[at + length :]
    if how == 3:
        return data[:at] + data[max(0, at - length) : at] + data[at:]
    # Sizes stand in the first bytes of most formats.
    at = rng.randrange(min(len(data), 64) + 1)
    return data[:at] + rng.choice([b"\0", b"\xff", b"\x7f"]) * length + data[at + length :]


def is_usable(result: object) -> bool:
    """Whether a conversion's result is what its docstring promises."""
    if isinstance(result, Tensor):
        return result.numel() > 0 and (result.ndim == 2 or (result.ndim == 3 and result.shape[-1] == 3))
    return isinstance(result, Camera)
