"""Images and references as a caller may pass them."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from lotus2_ros.config.errors import InputError
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.image_files import read_rgb
from lotus2_ros.inference.inputs import as_image, as_reference
from lotus2_ros.scale.reference import Reference

HEIGHT, WIDTH = 5, 7
CAMERA = Camera(WIDTH, HEIGHT, [[4.0, 0, 3.0], [0, 8.0, 1.0], [0, 0, 1]])


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "form",
    [
        np.asarray,
        read_only,
        np.asfortranarray,
        lambda rgb: rgb[:, :, ::-1].copy()[:, :, ::-1],  # BGR turned round: a negative stride
        torch.from_numpy,
        Image.fromarray,
        lambda rgb: Image.fromarray(rgb).convert("RGBA"),
    ],
    ids=["array", "read-only", "fortran", "from BGR", "tensor", "PIL", "PIL with alpha"],
)
@pytest.mark.filterwarnings("error")
def test_every_form_of_an_image_is_the_same_tensor(rgb, form):
    image = as_image(form(rgb))
    assert image.dtype == torch.uint8 and torch.equal(image, torch.from_numpy(rgb))


@pytest.mark.parametrize("as_path", [str, lambda path: path], ids=["str", "Path"])
def test_a_path_is_read_as_rgb(rgb, tmp_path, as_path):
    cv2.imwrite(str(tmp_path / "a.png"), rgb[:, :, ::-1])
    assert torch.equal(as_image(as_path(tmp_path / "a.png")), torch.from_numpy(rgb))
    assert np.array_equal(read_rgb(tmp_path / "a.png"), rgb)


def test_a_missing_and_a_broken_file_are_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.png: no such image file"):
        as_image(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"a\.png: not an image that OpenCV reads"):
        as_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(5, 7, 3), "got (5, 7, 3) of torch.float32; multiply by 255 and convert to uint8"),
        (np.zeros((5, 7, 3)), "got (5, 7, 3) of float64; multiply by 255 and convert to uint8"),
        (np.zeros((5, 7, 3), np.uint16), "got (5, 7, 3) of uint16"),
        (np.zeros((1, 5, 7, 3), np.uint8), "got (1, 5, 7, 3) of uint8; pass one image at a time"),
        (np.zeros((3, 5, 7), np.uint8), "got (3, 5, 7) of uint8; move the channels last"),
        (np.zeros((5, 7), np.uint8), "got (5, 7) of uint8; repeat the channel of a gray image three times"),
        (np.zeros((5, 7, 4), np.uint8), "got (5, 7, 4) of uint8; drop the alpha channel"),
        (np.zeros((0, 7, 3), np.uint8), "got (0, 7, 3) of uint8"),
        ([[1, 2, 3]], "expected an image as a path, a PIL image, an array or a tensor, got list"),
        (None, "expected an image as a path, a PIL image, an array or a tensor, got NoneType"),
    ],
)
def test_another_image_is_refused_with_what_to_do(image, message):
    with pytest.raises(InputError, match=re.escape(message)):
        as_image(image)


@pytest.mark.parametrize("form", [np.asarray, torch.from_numpy, lambda depth: depth.astype(np.float64)])
def test_depth_is_a_reference_as_it_is(form):
    depth = np.full((HEIGHT, WIDTH), np.nan, np.float32)
    depth[1, 2] = 3.0
    reference = as_reference(form(depth), None)
    assert reference.source == "reference_depth" and reference.depth.dtype == torch.float32
    torch.testing.assert_close(reference.depth, torch.from_numpy(depth), equal_nan=True)


def test_convention_points_are_in_the_optical_frame():
    """x right, y down, z forward: u = 4 x / z + 3 and v = 8 y / z + 1."""
    points = np.array([[1.0, 0.5, 2.0], [0.0, 0.0, -1.0], [100.0, 0.0, 2.0]])  # seen; behind the camera; beside it
    reference = as_reference(points, CAMERA)
    assert reference.source == "reference_points" and reference.depth.shape == (HEIGHT, WIDTH)
    assert reference.depth[3, 5] == 2.0 and int(torch.isfinite(reference.depth).sum()) == 1


def test_what_is_a_reference_already_stays():
    reference = Reference(torch.ones(2, 2), 7.0)
    assert as_reference(reference, None) is reference and as_reference(None, None) is None


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (np.ones((5, 7), np.uint16), "in meters as floats, got integers; divide millimeters by 1000"),
        (torch.ones(5, 7, dtype=torch.int32), "in meters as floats, got integers; divide millimeters by 1000"),
        (np.ones((1, 5, 7)), "expected a reference of depth (H, W) or points (N, 3), got (1, 5, 7)"),
        (np.ones((0, 3)), "expected a reference of depth (H, W) or points (N, 3), got (0, 3)"),
        (np.ones((9, 3)), "expected a camera with reference points (N, 3), got none; pass camera="),
        ([[1.0]], "expected a reference as an array or a tensor, got list"),
    ],
)
def test_another_reference_is_refused_with_what_to_do(reference, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        as_reference(reference, None)
