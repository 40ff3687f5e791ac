import math
import re
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
@pytest.mark.parametrize("model", ["", "plumb_bob", "none", "None"])
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
        ({"distortion_model": ""}, (48, 32), LensError, "got '' .*fits plumb_bob or equidistant"),
        ({"distortion_model": "", "D": (*D[:4], 0.1)}, (48, 32), LensError, "got '' .*fits plumb_bob:"),
        ({"distortion_model": "fov"}, (48, 32), LensError, "got 'fov'"),
        ({"D": D[:3]}, (48, 32), LensError, "4 or 5 coefficients of plumb_bob, got 3"),
        ({"D": (math.nan, *D[1:])}, (48, 32), LensError, r"expected finite distortion coefficients, got \[nan.*\]$"),
        ({"D": (*D, 0.0, 0.0, 0.3)}, (48, 32), LensError, "of plumb_bob, got 8 .*fits rational_polynomial:"),
        ({"distortion_model": "equidistant", "D": (0.1,) * 5}, (48, 32), LensError, "got 5 .*fits plumb_bob:"),
        ({"D": (0.1, *[0.0] * 6, 0.3, 0.0)}, (48, 32), LensError, r"got 9 \(8 without the zeros at the end, which"),
        ({"distortion_model": "rational_polynomial"}, (48, 32), LensError, "got 5 .*fits plumb_bob or equidistant:"),
        ({"distortion_model": "rational_polynomial", "D": (0.1,) * 14}, (48, 32), LensError, "got 14 .*tilted sensor"),
    ],
)
def test_what_does_not_fit_is_refused(changes, size, error, message):
    with pytest.raises(error, match=message):
        replace(FULL, **changes).camera(*size, rectified=False)


@pytest.mark.parametrize(
    ("model", "coefficients", "used"),
    [
        ("plumb_bob", (*D[:4], 0.3, 0.0, 0.0, 0.0), 5),
        ("plumb_bob", (*D[:4], 0.3, *[0.0] * 9), 5),
        ("equidistant", (*D[:4], 0.0), 4),
        ("equidistant", (0.0,) * 5, 4),
        ("rational_polynomial", (0.1,) * 8 + (0.0,) * 6, 12),
        ("rational_polynomial", (0.1,) * 12 + (0.0,) * 2, 12),
        ("rational_polynomial", (0.1,) * 8 + (0.0,) * 2, 8),
    ],
)
def test_zeros_beyond_the_models_coefficients_are_ignored(model, coefficients, used):
    lens = replace(FULL, distortion_model=model, D=coefficients).camera(48, 32, rectified=False).lens
    assert lens == Lens(model, coefficients[:used])


def test_a_rectified_image_without_p_of_a_lens_that_distorts_is_refused():
    with pytest.raises(CameraError, match="expected P for the rectified image, got zeros"):
        replace(FULL, P=(0.0,) * 12).camera(48, 32, rectified=True)


def pinhole(width: int, height: int, fx: float, cx: float, cy: float, **changes) -> Calibration:
    return Calibration(width, height, (fx, 0.0, cx, 0.0, fx, cy, 0.0, 0.0, 1.0), **changes)


@pytest.mark.parametrize(
    ("calibration", "mistake"),
    [
        (
            pinhole(160, 120, 562.0, 477.0, 261.5),
            "of 160x120 .*cx 477, cy 261.5: .* of about 955x524",
        ),
        (pinhole(1280, 800, 45.0, 39.5, 24.5), "an image of about 80x50"),
        (pinhole(640, 480, 0.8, 0.5, 0.52), "normalized"),
        (pinhole(640, 480, 500.0, 0.5, 0.52), "normalized"),
        (pinhole(640, 480, 125.0, 79.5, 59.5, binning=(4, 4)), "scaled by the binning 4x4 already"),
        (pinhole(640, 480, 250.0, 159.5, 119.5, binning=(2, 2)), "scaled by the binning 2x2 already"),
        (pinhole(640, 480, 500.0, 0.0, 0.0), "cx 0, cy 0: calibrate the camera again"),
        (pinhole(640, 480, 500.0, 319.5, -300.0), "calibrate the camera again"),
        (pinhole(640, 480, 500.0, 20.0, 470.0), "calibrate the camera again"),
        (
            pinhole(640, 480, 4.2, 319.5, 239.5),
            "of 32 to 640000 pixels, got fx 4.2, fy 4.2: it looks like one in milli",
        ),
        (pinhole(640, 480, 1e9, 319.5, 239.5), "got fx 1e.09, fy 1e.09: calibrate"),
        (replace(FULL, D=(-1e6, 0.0, 0.0, 0.0)), "a ray for 0% of its pixels"),
        (replace(FULL, K=FULL.K[::3] + FULL.K[1::3] + FULL.K[2::3]), "transposed"),
        (pinhole(640, 480, 500.0, 319.5, 239.5, roi=(401, 300, 240, 180)), "inside camera_info's 640x480, got 240x180"),
    ],
)
def test_an_implausible_calibration_names_the_likely_mistake(calibration, mistake):
    assert re.search(mistake, calibration.doubt(rectified=False))


@pytest.mark.parametrize(
    "calibration",
    [
        FULL,
        pinhole(640, 480, 500.0, 319.5, 239.5, binning=(4, 4)),
        pinhole(640, 480, 500.0, 250.0, 300.0, binning=(2, 2)),
        pinhole(640, 480, 500.0, 319.5, 239.5, roi=(400, 300, 240, 180)),  # outside the region, inside the image
        pinhole(640, 480, 500.0, 319.5, 20.0),
        # A fisheye of 220 degrees, whose rays are followed to 89 degrees off the axis.
        pinhole(1280, 720, 187.0, 639.5, 359.5, distortion_model="equidistant", D=(0.0,) * 4),
    ],
)
@pytest.mark.parametrize("rectified", [False, True])
def test_a_plausible_principal_point_is_not_doubted(calibration, rectified):
    assert calibration.doubt(rectified=rectified) == ""


def test_of_a_rectified_image_the_principal_point_of_p_is_doubted():
    wrong = replace(FULL, P=(35.0, 0.0, 122.0, -9.0, 0.0, 36.0, 74.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    assert "cx 122, cy 74" in wrong.doubt(rectified=True) and not wrong.doubt(rectified=False)


def test_a_focal_length_of_zero_means_uncalibrated():
    assert FULL.is_calibrated(rectified=False) and FULL.is_calibrated(rectified=True)
    nothing = replace(FULL, K=(0.0,) * 9, P=(0.0,) * 12)
    assert not nothing.is_calibrated(rectified=False) and not nothing.is_calibrated(rectified=True)
    of_rectified = replace(FULL, K=(0.0,) * 9)
    assert of_rectified.is_calibrated(rectified=True) and not of_rectified.is_calibrated(rectified=False)


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
