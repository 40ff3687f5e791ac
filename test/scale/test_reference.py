import math

import pytest
import torch

from lotus2_ros.scale.reference import FIT_POINTS, Reference, fit_to_reference
from lotus2_ros.scale.stats import AlignmentError

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
