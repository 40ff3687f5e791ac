import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lotus2_ros.geometry.calibration import Calibration, SizeError, is_rectified
from lotus2_ros.geometry.camera import Camera, CameraError
from lotus2_ros.geometry.lens import Lens, LensError

K = (40.0, 0.0, 21.0, 0.0, 44.0, 13.0, 0.0, 0.0, 1.0)
P = (35.0, 0.0, 22.0, -9.0, 0.0, 36.0, 14.0, 0.0, 0.0, 0.0, 1.0, 0.0)
D = (-0.2, 0.05, 0.001, -0.002, 0.0)
FULL = Calibration(48, 32, K, D, "plumb_bob", P)


def test_a_raw_image_has_k_and_the_lens():
    camera = FULL.camera(48, 32, rectified=False)
    assert camera.K.tolist() == [[40, 0, 21], [0, 44, 13], [0, 0, 1]]
    assert camera.lens == Lens("plumb_bob", D)


def test_a_rectified_image_has_p_and_no_lens():
    camera = FULL.camera(48, 32, rectified=True)
    assert camera.K.tolist() == [[35, 0, 22], [0, 36, 14], [0, 0, 1]] and camera.lens is None


@given(x=st.integers(0, 9), y=st.integers(0, 7), width=st.integers(1, 30), height=st.integers(1, 20))
def test_a_region_of_interest_has_the_rays_of_its_pixels(x, y, width, height):
    part = replace(FULL, roi=(x, y, width, height)).camera(width, height, rectified=False)
    whole = FULL.camera(48, 32, rectified=False)
    torch.testing.assert_close(part.rays, whole.rays[y : y + height, x : x + width])


@pytest.mark.parametrize("rectified", [False, True])
def test_binned_pixels_keep_their_edges(rectified):
    """A pixel of 2 x 3 binned ones sees what lies in their middle: between pixels 2 and 3, on row 4."""
    binned = replace(FULL, binning=(2, 3)).camera(24, 10, rectified=rectified)
    whole = FULL.camera(48, 32, rectified=rectified)
    between = torch.tensor([[2.5, 4.0]], dtype=torch.float64)
    ideal = (between - whole.K[:2, 2]) / whole.K[[0, 1], [0, 1]]
    expected = (whole.lens.undistort(ideal) if whole.lens else ideal).float()
    torch.testing.assert_close(binned.rays[1, 1, :2], expected[0])


def test_binning_a_region_of_interest():
    # The region is in pixels of full resolution, whatever the binning.
    camera = replace(FULL, binning=(2, 2), roi=(10, 4, 20, 16)).camera(10, 8, rectified=False)
    assert camera.K.tolist() == [[20, 0, (21 - 10 + 0.5) / 2 - 0.5], [0, 22, (13 - 4 + 0.5) / 2 - 0.5], [0, 0, 1]]
    torch.testing.assert_close(
        camera.rays, replace(FULL, roi=(10, 4, 20, 16)).camera(20, 16, rectified=False).resize(10, 8).rays
    )


def test_binning_of_zero_is_none():
    one, none = (replace(FULL, binning=binning).camera(48, 32, rectified=False) for binning in ((1, 1), (0, 0)))
    assert torch.equal(one.rays, none.rays)


@pytest.mark.parametrize("coefficients", [(), (0.0,) * 5])
@pytest.mark.parametrize("model", ["", "plumb_bob"])
def test_without_coefficients_it_is_a_pinhole(model, coefficients):
    calibration = replace(FULL, D=coefficients, distortion_model=model, P=(0.0,) * 12)
    for rectified in (False, True):  # then also K holds for rectified images, should P be missing
        camera = calibration.camera(48, 32, rectified=rectified)
        assert camera.lens is None and torch.equal(camera.rays, Camera(48, 32, camera.K).rays)
        assert camera.K.flatten().tolist() == list(K)


def test_an_equidistant_lens_without_coefficients_is_not_a_pinhole():
    camera = replace(FULL, D=(0.0,) * 4, distortion_model="equidistant").camera(48, 32, rectified=False)
    assert float(camera.rays[13, 47, 0]) == pytest.approx(math.tan(26 / 40))


@pytest.mark.parametrize(
    ("changes", "size", "error", "message"),
    [
        ({}, (47, 32), SizeError, "expected an image of 48x32 .*, got 47x32"),
        ({"binning": (2, 2)}, (48, 32), SizeError, "expected an image of 24x16 .*, got 48x32, camera_info's full size"),
        ({"roi": (1, 2, 30, 20)}, (48, 32), SizeError, "of 30x20 .*region 30x20 at 1, 2"),
        ({"K": (0.0,) * 9}, (48, 32), CameraError, "uncalibrated"),
        ({"distortion_model": ""}, (48, 32), LensError, "got ''"),
        ({"distortion_model": "fov"}, (48, 32), LensError, "got 'fov'"),
        ({"D": D[:3]}, (48, 32), LensError, "4 or 5 coefficients of plumb_bob, got 3"),
    ],
)
def test_what_does_not_fit_is_refused(changes, size, error, message):
    with pytest.raises(error, match=message):
        replace(FULL, **changes).camera(*size, rectified=False)


def test_a_rectified_image_without_p_of_a_lens_that_distorts_is_refused():
    with pytest.raises(CameraError, match="expected P of the rectified image, got zeros"):
        replace(FULL, P=(0.0,) * 12).camera(48, 32, rectified=True)


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("/camera/image_rect", True),
        ("/camera/image_rect_color", True),
        ("/camera/image_rect/compressed", True),
        ("/camera/image_raw", False),
        ("/image_rect/image", False),
        ("/image/compressed", False),
        ("image", False),
    ],
)
def test_rectified_images_are_known_by_their_topic(topic, expected):
    assert is_rectified(topic) is expected
