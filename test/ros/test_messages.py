from array import array

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from lotus2_ros.geometry.lens import Lens
from lotus2_ros.ros.clouds import tensor_to_cloud
from lotus2_ros.ros.messages import (
    COLOR_ENCODINGS,
    MessageError,
    camera_from_info,
    depth_to_tensor,
    image_to_tensor,
    tensor_to_image,
)

HEIGHT, WIDTH = 6, 8
# Smooth, so that what a Bayer mosaic and chroma subsampling lose is little; red grows to the right, green downward.
RGB = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
RGB[..., 0] = 100 + 8 * np.arange(WIDTH)
RGB[..., 1] = 60 + 10 * np.arange(HEIGHT)[:, None]
RGB[..., 2] = 40
BAYER = {"rggb": ((0, 1), (1, 2)), "bggr": ((2, 1), (1, 0)), "gbrg": ((1, 2), (0, 1)), "grbg": ((1, 0), (2, 1))}


def message(pixels, encoding, padding=0, bigendian=False, width=WIDTH, height=HEIGHT):
    """An Image of rows of ``pixels`` with ``padding`` bytes of rubbish behind each."""
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    if bigendian:
        rows = rows.byteswap()
    rows = rows.view(np.uint8)
    rows = np.concatenate((rows, np.full((len(rows), padding), 0xAB, np.uint8)), axis=1)
    image = Image(height=height, width=width, encoding=encoding, step=rows.shape[1], is_bigendian=int(bigendian))
    image.data = array("B", rows.tobytes())
    return image


def yuv(pixels):
    """Full (H, W) luma and chroma planes by BT.601, limited range, as cameras send."""
    r, g, b = (pixels[..., i].astype(float) for i in range(3))
    y = 16 + (65.738 * r + 129.057 * g + 25.064 * b) / 256
    u = 128 + (-37.945 * r - 74.494 * g + 112.439 * b) / 256
    v = 128 + (112.439 * r - 94.154 * g - 18.285 * b) / 256
    return (np.round(plane).astype(np.uint8) for plane in (y, u, v))


def encoded(encoding):
    """RGB in this encoding, as rows of a message."""
    if encoding.startswith("bayer"):
        pattern = BAYER[encoding[6:10]]
        return np.array([[RGB[y, x, pattern[y % 2][x % 2]] for x in range(WIDTH)] for y in range(HEIGHT)], np.uint8)
    if encoding in ("uyvy", "yuv422", "yuyv", "yuv422_yuy2", "nv12"):
        y, u, v = yuv(RGB)
        if encoding == "nv12":
            chroma = np.stack((u[::2, ::2], v[::2, ::2]), axis=-1).reshape(HEIGHT // 2, WIDTH)
            return np.concatenate((y, chroma))
        chroma = np.where(np.arange(WIDTH) % 2 == 0, np.repeat(u[:, ::2], 2, axis=1), np.repeat(v[:, ::2], 2, axis=1))
        pair = (chroma, y) if encoding in ("uyvy", "yuv422") else (y, chroma)
        return np.stack(pair, axis=-1)
    opaque = np.dstack((RGB, np.full((HEIGHT, WIDTH), 255, np.uint8)))
    return {
        "rgb8": RGB,
        "bgr8": RGB[..., ::-1],
        "rgba8": opaque,
        "bgra8": opaque[..., [2, 1, 0, 3]],
        "mono8": RGB[..., 0],
        "mono16": RGB[..., 0].astype(np.uint16) * 257,
    }[encoding]


@pytest.mark.parametrize("padding", [0, 1, 5])
@pytest.mark.parametrize("encoding", COLOR_ENCODINGS)
def test_every_encoding_gives_the_same_picture(encoding, padding):
    image = image_to_tensor(message(encoded(encoding), encoding, padding))
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == torch.uint8
    expected = np.repeat(RGB[..., :1], 3, axis=2) if encoding.startswith("mono") else RGB
    # Demosaicing guesses at the border; subsampled chroma is off by half the step of red.
    tolerance = {"b": 16, "y": 8, "u": 8, "n": 12}.get(encoding[0], 0) if encoding[:3] != "bgr" else 0
    error = np.abs(image.numpy().astype(int) - expected)
    inner = error[1:-1, 1:-1] if encoding.startswith("bayer") else error
    assert inner.max() <= tolerance


@pytest.mark.parametrize("padding", [0, 3])
def test_mono16_of_either_byte_order(padding):
    for bigendian in (False, True):
        image = image_to_tensor(message(encoded("mono16"), "mono16", padding, bigendian))
        assert np.array_equal(image[..., 1].numpy(), RGB[..., 0])


@given(
    width=st.integers(1, 9),
    height=st.integers(1, 9),
    padding=st.integers(0, 7),
    encoding=st.sampled_from(["rgb8", "bgr8"]),
)
def test_any_size_and_row_step(width, height, padding, encoding):
    pixels = np.random.default_rng(width * 100 + height).integers(0, 256, (height, width, 3), np.uint8)
    image = image_to_tensor(message(pixels, encoding, padding, width=width, height=height)).numpy()
    assert np.array_equal(image if encoding == "rgb8" else image[..., ::-1], pixels)


@pytest.mark.parametrize("format", ["png", "jpeg"])
def test_compressed_images(format):
    big = cv2.resize(RGB, (64, 48), interpolation=cv2.INTER_LINEAR)
    data = cv2.imencode("." + format, big[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    compressed = CompressedImage(format=format, data=array("B", data.tobytes()))
    image = image_to_tensor(compressed).numpy()
    assert np.abs(image.astype(int) - big).max() <= (0 if format == "png" else 12)


def truncated(image, size):
    image.data = image.data[:size]
    return image


@pytest.mark.parametrize(
    ("image", "reason", "text"),
    [
        (message(RGB, "rgb16"), "encoding", "got 'rgb16'"),
        (message(RGB, "32FC1"), "encoding", "got '32FC1'"),
        (truncated(message(RGB, "rgb8"), 143), "image_data", r"expected 144 bytes \(step 24 x 6\), got 143"),
        (message(RGB, "rgba8"), "image_step", "at least 32 bytes, got 24"),
        (Image(encoding="rgb8"), "image_size", "got 0x0"),
        (message(RGB[:, :7], "uyvy", width=7, padding=20), "image_size", "even width"),
        (message(encoded("nv12")[:-1], "nv12"), "image_data", "72"),
        (CompressedImage(format="jpeg"), "image_data", "no data"),
        (CompressedImage(format="jpeg", data=array("B", b"not a jpeg")), "image_format", "got data of an unknown"),
    ],
)
def test_bad_images_say_what_was_expected_and_what_came(image, reason, text):
    with pytest.raises(MessageError, match=text) as caught:
        image_to_tensor(image)
    assert caught.value.reason == reason


@pytest.mark.parametrize("bigendian", [False, True])
@pytest.mark.parametrize("padding", [0, 3])
def test_reference_depth_in_meters_and_millimeters(bigendian, padding):
    depth = np.array([[1.5, 0.0, 2.0], [np.nan, np.inf, 0.25]], np.float32)
    meters = depth_to_tensor(message(depth, "32FC1", padding, bigendian, width=3, height=2))
    millimeters = np.nan_to_num(depth * 1000, nan=0, posinf=0).astype(np.uint16)
    converted = depth_to_tensor(message(millimeters, "16UC1", padding, bigendian, width=3, height=2))
    expected = torch.tensor([[1.5, torch.nan, 2.0], [torch.nan, torch.nan, 0.25]])
    torch.testing.assert_close(meters, expected, equal_nan=True)
    torch.testing.assert_close(converted, expected, equal_nan=True)


def test_millimeters_of_65535_are_no_measurement():
    depth = depth_to_tensor(
        message(np.array([[0, 65535, 65534], [1, 65535, 2380]], np.uint16), "16UC1", width=3, height=2)
    )
    expected = torch.tensor([[torch.nan, torch.nan, 65.534], [0.001, torch.nan, 2.38]])
    torch.testing.assert_close(depth, expected, equal_nan=True)
    with pytest.raises(MessageError, match="only 0 or 65535"):
        depth_to_tensor(message(np.full((2, 3), 65535, np.uint16), "16UC1", width=3, height=2))


def test_meters_of_65535_are_a_measurement():
    assert (
        float(depth_to_tensor(message(np.full((2, 3), 65535.0, np.float32), "32FC1", width=3, height=2))[0, 0]) == 65535
    )


def test_an_error_is_one_short_line():
    error = MessageError("reason", "a\nb" + 1000 * "c")
    assert str(error).startswith("a bccc") and len(str(error)) < 410


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_reference_without_one_valid_pixel_is_refused(value):
    with pytest.raises(MessageError, match="some valid depth") as caught:
        depth_to_tensor(message(np.full((2, 3), value, np.float32), "32FC1", width=3, height=2))
    assert caught.value.reason == "empty"


def info(width=WIDTH, height=HEIGHT, fx=10.0, **changes):
    return CameraInfo(width=width, height=height, k=[fx, 0.0, 3.0, 0.0, 20.0, 2.0, 0.0, 0.0, 1.0], **changes)


def test_camera_of_an_info():
    camera = camera_from_info(info(), HEIGHT, WIDTH, "cpu", rectified=False)
    assert camera.K.tolist() == [[10, 0, 3], [0, 20, 2], [0, 0, 1]] and camera.lens is None


def test_everything_of_an_info_reaches_the_camera():
    p = [30.0, 0.0, 9.0, 0.0, 0.0, 40.0, 7.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    roi = RegionOfInterest(x_offset=2, y_offset=1, width=2 * WIDTH, height=3 * HEIGHT)
    d = [0.1, 0.0, 0.0, 0.0, 0.0]
    part = info(64, 48, distortion_model="plumb_bob", d=d, p=p, roi=roi, binning_x=2, binning_y=3)
    raw = camera_from_info(part, HEIGHT, WIDTH, "cpu", rectified=False)
    assert raw.lens == Lens("plumb_bob", (0.1, 0.0, 0.0, 0.0, 0.0))
    assert raw.K.tolist() == [[5, 0, 0.25], [0, pytest.approx(20 / 3), 0], [0, 0, 1]]
    rectified = camera_from_info(part, HEIGHT, WIDTH, "cpu", rectified=True)
    assert rectified.lens is None and rectified.K[0].tolist() == [15, 0, 3.25]


@pytest.mark.parametrize(
    ("bad", "reason", "text"),
    [
        (info(fx=0.0), "camera_info_uncalibrated", "uncalibrated.*cameracalibrator.*input.fov"),
        (info(fx=-1.0), "camera_info_uncalibrated", "positive focal lengths, got fx=-1"),
        (info(fx=np.nan), "camera_info_uncalibrated", "finite intrinsics"),
        (info(width=HEIGHT, height=WIDTH), "camera_info_size", "expected an image of 6x8 .*, got 8x6"),
        (info(distortion_model="fov", d=[0.1]), "camera_info_distortion", "got 'fov'"),
        (info(distortion_model="plumb_bob", d=[0.1]), "camera_info_distortion", "4 or 5 coefficients"),
    ],
)
def test_infos_that_do_not_fit(bad, reason, text):
    with pytest.raises(MessageError, match=text) as caught:
        camera_from_info(bad, HEIGHT, WIDTH, "cpu", rectified=False)
    assert caught.value.reason == reason


@given(width=st.integers(1, 9), height=st.integers(1, 9), channels=st.sampled_from([1, 3]))
def test_float_images_come_back(width, height, channels):
    shape = (height, width) if channels == 1 else (height, width, 3)
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(width))
    header = Header(frame_id="cam")
    image = tensor_to_image(pixels, f"32FC{channels}", header)
    assert (image.height, image.width, image.step) == (height, width, 4 * width * channels)
    assert image.header.frame_id == "cam" and not image.is_bigendian
    assert np.array_equal(np.frombuffer(image.data, np.float32).reshape(shape), pixels.numpy())


def test_a_message_has_memory_of_its_own():
    """What it was made of may hold the next frame by the time the message is sent."""
    depth = torch.ones(2, 3)
    packed = torch.ones(2, 3, 4)
    messages = tensor_to_image(depth, "32FC1", Header()), tensor_to_cloud(packed, Header())
    before = [bytes(message.data) for message in messages]
    depth.zero_()
    packed.zero_()
    assert [bytes(message.data) for message in messages] == before
