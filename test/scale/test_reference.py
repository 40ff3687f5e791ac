import math

import pytest
import torch

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.scale.fit import AlignmentError
from lotus2_ros.scale.reference import FIT_POINTS, Reference, fit_to_reference

DISPARITY = torch.rand(24, 36, generator=torch.Generator().manual_seed(0))
DEPTH = 1 / (0.4 * DISPARITY + 0.1)


def test_fit_to_a_sparse_reference():
    sparse = torch.full_like(DEPTH, torch.nan)
    sparse[::5, ::3] = DEPTH[::5, ::3]
    scale, shift, stats = fit_to_reference(DISPARITY, Reference(sparse))
    assert (scale, shift) == (pytest.approx(0.4, rel=1e-4), pytest.approx(0.1, rel=1e-4))
    assert stats.inlier_fraction == 1.0


def test_gross_outliers_of_a_reference_do_not_count():
    depth = DEPTH.clone()
    depth[:8] = 30
    scale, shift, stats = fit_to_reference(DISPARITY, Reference(depth))
    assert (scale, shift) == (pytest.approx(0.4, rel=1e-4), pytest.approx(0.1, rel=1e-4))
    assert stats.inlier_fraction == pytest.approx(2 / 3, abs=0.01)


@pytest.mark.parametrize("invalid", [0.0, math.nan, math.inf, -1.0])
def test_invalid_pixels_of_a_reference_do_not_count(invalid):
    depth = DEPTH.clone()
    depth[:20] = invalid
    assert fit_to_reference(DISPARITY, Reference(depth))[0] == pytest.approx(0.4, rel=1e-4)


def test_a_reference_of_another_size_falls_on_the_right_pixels():
    coarse = DEPTH[1::2, 1::2]  # each is the lower right of a 2x2 block, whose centre is the nearest pixel
    scale, _, _ = fit_to_reference(DISPARITY, Reference(coarse))
    assert scale == pytest.approx(0.4, rel=1e-4)
    transposed, _, _ = fit_to_reference(DISPARITY.T.contiguous(), Reference(coarse.T.contiguous()))
    assert transposed == pytest.approx(scale, rel=1e-6)


def test_a_dense_reference_is_used_all_over():
    """Points chosen in step with the rows would all lie in a few columns."""
    disparity = torch.rand(240, 320, generator=torch.Generator().manual_seed(0))
    depth = 1 / (0.4 * disparity + 0.1)
    depth[:, ::32] = 1 / (0.4 * disparity[:, ::32] + 0.9)
    scale, shift, stats = fit_to_reference(disparity, Reference(depth))
    assert (scale, shift) == (pytest.approx(0.4, rel=1e-4), pytest.approx(0.1, rel=1e-4))
    assert stats.points == FIT_POINTS
    assert stats.inlier_fraction == pytest.approx(31 / 32, abs=0.005)


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (torch.full((24, 36), torch.nan), "at least 20 points, got 0 points"),
        (DEPTH.flip(0, 1), "by more than its errors"),
        (1 / (1 - 0.4 * DISPARITY), "near points to have more disparity"),
    ],
)
def test_a_reference_that_determines_nothing_is_refused(depth, message):
    with pytest.raises(AlignmentError, match=message):
        fit_to_reference(DISPARITY, Reference(depth))


CAMERA = Camera.from_intrinsics(8, 6, 5.0, 6.0, 3.0, 2.0)
POINTS = [[0.0, 0.0, 2.0], [0.4, 0.0, 2.0]]


def test_a_reference_of_points_is_their_depth_in_the_camera():
    reference = Reference.of(torch.tensor(POINTS, dtype=torch.float64), CAMERA, stamp=1.5)
    assert (reference.source, reference.stamp) == ("reference_points", 1.5)
    assert reference.depth.shape == (6, 8) and reference.depth.dtype == torch.float32
    assert torch.nonzero(torch.isfinite(reference.depth)).tolist() == [[2, 3], [2, 4]]


def test_a_reference_of_depth_is_that_depth():
    reference = Reference.of(DEPTH.double(), stamp=2.5)
    assert (reference.source, reference.stamp) == ("reference_depth", 2.5)
    torch.testing.assert_close(reference.depth, DEPTH)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.ones(4, 5, dtype=torch.uint16), "in meters as floats, got integers; divide millimeters by 1000"),
        (torch.ones(4, 5, 1), r"depth \(H, W\) or points \(N, 3\), got \(4, 5, 1\)"),
        (torch.ones(4), r"depth \(H, W\) or points \(N, 3\), got \(4,\)"),
        (torch.ones(9, 3), r"expected a camera with reference points \(N, 3\), got none"),
    ],
)
def test_what_is_no_reference_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Reference.of(values)


def test_a_reference_is_a_matrix_of_depth():
    with pytest.raises(ValueError, match=r"shape \(H, W\), got \(1, 24, 36\)"):
        Reference(DEPTH[None])


def test_measurements_count_by_their_weights():
    depth = 1 / (0.4 * DISPARITY + 0.1)
    wrong = torch.arange(depth.shape[1]) % 2 == 0
    given = torch.where(wrong, 2 * depth, depth)
    weight = torch.where(wrong, 0.1, 1.0).expand_as(depth)
    assert fit_to_reference(DISPARITY, Reference(given, weight=weight))[0] == pytest.approx(0.4, rel=1e-3)
    assert fit_to_reference(DISPARITY, Reference(given, weight=1.1 - weight))[0] == pytest.approx(0.2, rel=1e-3)


def test_weights_have_the_shape_of_the_depth():
    with pytest.raises(ValueError, match=r"expected weights of shape \(4, 5\), as depth, got \(5, 4\)"):
        Reference(torch.ones(4, 5), weight=torch.ones(5, 4))


def test_a_reference_with_a_problem_is_refused_with_it():
    with pytest.raises(AlignmentError, match="the clock stands"):
        fit_to_reference(DISPARITY, Reference(1 / (DISPARITY + 1), problem="the clock stands"))
