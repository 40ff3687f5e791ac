import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lotus2_ros.geometry.lens import Lens, LensError

LENSES = [
    Lens("plumb_bob", (-0.2664, -0.0386, 0.0018, -0.0003, 0.2384)),
    Lens("plumb_bob", (0.12, -0.08, -0.003, 0.002)),
    Lens("rational_polynomial", (0.5, 0.1, 0.001, -0.0005, 0.05, 0.9, 0.2, 0.01)),
    Lens("rational_polynomial", (0.5, 0.1, 0.001, -0.0005, 0.05, 0.9, 0.2, 0.01, 0.004, -0.001, -0.003, 0.002)),
    Lens("equidistant", (-0.013, 0.03, -0.02, 0.005)),
]
by_model = pytest.mark.parametrize("lens", LENSES, ids=lambda lens: f"{lens.model}-{len(lens.coefficients)}")
# Off centre and wider than high; no point at the same distance left and right, above and below.
GRID = torch.stack(
    torch.meshgrid(torch.linspace(-0.66, 0.6, 19), torch.linspace(-0.43, 0.5, 13), indexing="xy"), dim=-1
).double()


def distorted_by_opencv(lens: Lens, undistorted: torch.Tensor) -> torch.Tensor:
    points = torch.cat((undistorted, torch.ones_like(undistorted[..., :1])), dim=-1).reshape(-1, 1, 3).numpy()
    project = cv2.fisheye.projectPoints if lens.model == "equidistant" else cv2.projectPoints
    distorted, _ = project(points, np.zeros(3), np.zeros(3), np.eye(3), np.array(lens.coefficients))
    return torch.from_numpy(distorted).reshape(undistorted.shape)


def undistorted_by_opencv(lens: Lens, distorted: torch.Tensor) -> torch.Tensor:
    # Its default of five iterations is not enough for 1e-4.
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 500, 1e-12)
    undistort = cv2.fisheye.undistortPoints if lens.model == "equidistant" else cv2.undistortPoints
    undistorted = undistort(
        distorted.reshape(-1, 1, 2).numpy(), np.eye(3), np.array(lens.coefficients), criteria=criteria
    )
    return torch.from_numpy(undistorted).reshape(distorted.shape)


@by_model
def test_distort_agrees_with_opencv(lens):
    torch.testing.assert_close(lens.distort(GRID), distorted_by_opencv(lens, GRID), rtol=0, atol=1e-12)


@by_model
def test_undistort_agrees_with_opencv(lens):
    torch.testing.assert_close(lens.undistort(GRID), undistorted_by_opencv(lens, GRID), rtol=0, atol=1e-6)


@by_model
def test_on_the_axis_nothing_is_distorted(lens):
    centre = torch.zeros(1, 2, dtype=torch.float64)
    assert torch.equal(lens.distort(centre), centre) and torch.equal(lens.undistort(centre), centre)


def test_convention_a_barrel_draws_points_nearer_to_the_axis_and_p1_along_y():
    barrel = Lens("plumb_bob", (-0.2, 0.0, 0.0, 0.0, 0.0)).distort(torch.tensor([0.5, 0.0]))
    torch.testing.assert_close(barrel, torch.tensor([0.5 * (1 - 0.2 * 0.25), 0.0]))
    tilted = Lens("plumb_bob", (0.0, 0.0, 0.01, 0.0, 0.0)).distort(torch.tensor([0.0, 0.5]))
    torch.testing.assert_close(tilted, torch.tensor([0.0, 0.5 + 3 * 0.01 * 0.25]))


small = st.floats(-0.01, 0.01)
plumb_bob = st.builds(
    lambda *c: Lens("plumb_bob", c), st.floats(-0.4, 0.4), st.floats(-0.2, 0.2), small, small, st.floats(-0.1, 0.1)
)
rational = st.builds(
    lambda k, p, below: Lens("rational_polynomial", (k[0], k[1], *p, k[2], *below)),
    st.tuples(st.floats(-0.4, 0.8), st.floats(-0.2, 0.2), st.floats(-0.05, 0.05)),
    st.tuples(small, small),
    st.tuples(st.floats(0, 0.9), st.floats(0, 0.3), st.floats(0, 0.05)),
)
equidistant = st.builds(
    lambda *c: Lens("equidistant", c), *(st.floats(-limit, limit) for limit in (0.1, 0.05, 0.03, 0.02))
)


@given(lens=st.one_of(plumb_bob, rational, equidistant), share=st.floats(0, 0.95), angle=st.floats(0, 2 * math.pi))
def test_undistort_is_the_inverse_within_the_limit(lens, share, angle):
    limit = math.tan(min(lens.limit, 1.4)) if lens.model == "equidistant" else min(lens.limit, 3)
    undistorted = share * limit * torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    torch.testing.assert_close(lens.undistort(lens.distort(undistorted)), undistorted, rtol=1e-7, atol=1e-7)


@given(lens=st.one_of(plumb_bob, rational, equidistant), x=st.floats(-2, 2), y=st.floats(-2, 2))
def test_what_comes_back_is_distorted_there_or_nan(lens, x, y):
    distorted = torch.tensor([x, y], dtype=torch.float64)
    undistorted = lens.undistort(distorted)
    assume(bool(torch.isfinite(undistorted).any()))
    torch.testing.assert_close(lens.distort(undistorted), distorted, rtol=0, atol=1e-9)


def test_beyond_the_fold_of_the_polynomial_there_is_no_ray():
    k1, k2 = 0.2959, -1.0355
    lens = Lens("plumb_bob", (k1, k2, 0.0, 0.0, 0.0))
    # Where r (1 + k1 r^2 + k2 r^4) no longer grows.
    square = (-3 * k1 - math.sqrt(9 * k1 * k1 - 20 * k2)) / (10 * k2)
    fold = math.sqrt(square)
    assert lens.limit == pytest.approx(fold, abs=2e-3) and lens.limit < fold
    highest = fold * (1 + k1 * square + k2 * square * square)
    distorted = torch.tensor([[0.99 * highest, 0.0], [0.0, 1.01 * highest], [3.0, -2.0]])
    found = torch.isfinite(lens.undistort(distorted))
    assert found.tolist() == [[True, True], [False, False], [False, False]]
    assert torch.isfinite(lens.distort(torch.tensor([[0.9 * fold, 0.0], [1.1 * fold, 0.0]])))[:, 0].tolist() == [1, 0]


def test_beyond_a_pole_of_the_rational_polynomial_there_is_no_ray():
    lens = Lens("rational_polynomial", (0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0))  # 1 / (1 - r^2)
    assert lens.limit == pytest.approx(1.0, abs=2e-3)
    assert torch.isnan(lens.distort(torch.tensor([1.5, 0.0]))).all()


def test_a_fisheye_sees_rays_up_to_89_degrees():
    lens = Lens("equidistant", (0.0, 0.0, 0.0, 0.0))
    angles = torch.tensor([0.3, math.radians(88.9), math.radians(89.1), 1.7], dtype=torch.float64)
    undistorted = lens.undistort(torch.stack((angles, torch.zeros_like(angles)), dim=-1))
    torch.testing.assert_close(undistorted[:2, 0], angles[:2].tan())
    assert torch.isnan(undistorted[2:]).all()


def test_a_fisheye_whose_polynomial_folds_ends_there():
    lens = Lens("equidistant", (-0.2, 0.0, 0.0, 0.0))  # grows up to theta^2 = 1 / 0.6
    assert lens.limit == pytest.approx(math.sqrt(1 / 0.6), abs=2e-3)
    highest = lens.limit * (1 - 0.2 * lens.limit**2)
    distorted = torch.tensor([[0.0, 0.99 * highest], [0.0, 1.01 * highest]])
    assert torch.isfinite(lens.undistort(distorted))[:, 1].tolist() == [True, False]


@pytest.mark.parametrize(
    ("model", "coefficients", "message"),
    [
        ("thin_lens", (0.0,) * 5, "plumb_bob, rational_polynomial, equidistant, got 'thin_lens'"),
        ("plumb_bob", (0.1,) * 8, "4 or 5 coefficients of plumb_bob, got 8"),
        ("rational_polynomial", (0.1,) * 14, "8 or 12 coefficients of rational_polynomial, got 14"),
        ("equidistant", (), "4 coefficients of equidistant, got 0"),
        ("equidistant", (0.1, math.nan, 0.0, 0.0), "finite"),
    ],
)
def test_what_is_no_lens_is_refused(model, coefficients, message):
    with pytest.raises(LensError, match=message):
        Lens(model, coefficients)
