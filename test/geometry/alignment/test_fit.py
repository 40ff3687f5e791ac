import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lotus2_ros.geometry.alignment import AlignmentError, fit_scale_shift


def rand(count, seed=0):
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


@given(scale=st.floats(0.01, 10), shift=st.floats(-1, 1))
def test_exact_without_noise(scale, shift):
    disparity = rand(50).double()
    got_scale, got_shift, stats = fit_scale_shift(disparity, scale * disparity + shift, torch.ones(50))
    assert got_scale == pytest.approx(scale, rel=1e-6)
    assert got_shift == pytest.approx(shift, abs=1e-6 * max(scale, abs(shift)))
    assert stats.inlier_fraction == 1.0


def test_weights_are_honoured():
    """Two lines of equally many points: an unweighted column of ones would end up between them."""
    disparity = rand(200)
    truth = 2 * disparity + 3
    other = disparity + 10
    weight = torch.ones(200)
    weight[100:] = 0
    inverse_depth = torch.where(weight > 0, truth, other)
    scale, shift, stats = fit_scale_shift(disparity, inverse_depth, weight)
    assert (scale, shift) == (pytest.approx(2, rel=1e-6), pytest.approx(3, rel=1e-6))
    assert stats.points == 100


def test_nonuniform_weights_pull_the_fit():
    disparity = torch.cat((torch.zeros(30), torch.ones(30), torch.ones(30)))
    inverse_depth = torch.cat((torch.zeros(30), torch.full((30,), 1.0), torch.full((30,), 1.1)))
    light = torch.cat((torch.ones(60), torch.full((30,), 1e-3)))
    heavy = torch.cat((torch.ones(30), torch.full((30,), 1e-3), torch.ones(30)))
    assert fit_scale_shift(disparity, inverse_depth, light)[0] < 1.03
    assert fit_scale_shift(disparity, inverse_depth, heavy)[0] > 1.07


def test_gross_outliers_lose_all_weight():
    generator = torch.Generator().manual_seed(1)
    ours, told = [], []
    for _ in range(50):
        disparity = torch.rand(200, generator=generator)
        inverse_depth = (0.7 * disparity + 0.05) * (1 + 0.01 * torch.randn(200, generator=generator))
        inlier = torch.arange(200) >= 80
        inverse_depth[~inlier] = 3 * torch.rand(80, generator=generator)
        ours.append(abs(fit_scale_shift(disparity, inverse_depth, torch.ones(200))[0] - 0.7))
        design = torch.stack((disparity, torch.ones(200)), dim=1)[inlier]
        told.append(abs(torch.linalg.lstsq(design, inverse_depth[inlier]).solution[0] - 0.7))
    assert torch.tensor(ours).median() <= 1.5 * torch.tensor(told).median()


def test_points_that_are_not_finite_are_left_out():
    disparity, inverse_depth = rand(60), 2 * rand(60) + 1
    inverse_depth[:10] = torch.inf
    disparity[10:20] = torch.nan
    scale, shift, stats = fit_scale_shift(disparity, inverse_depth, torch.ones(60))
    assert (scale, shift, stats.points) == (pytest.approx(2, rel=1e-5), pytest.approx(1, rel=1e-5), 40)


@pytest.mark.parametrize(
    ("disparity", "inverse_depth", "message"),
    [
        (rand(10), rand(10), "at least 20 points, got 10"),
        (torch.full((50,), 0.5), rand(50), "disparity that varies"),
        (rand(50), 1 - rand(50), "near points to have more disparity"),
    ],
)
def test_data_that_determine_nothing_are_refused(disparity, inverse_depth, message):
    with pytest.raises(AlignmentError, match=message):
        fit_scale_shift(disparity, inverse_depth, torch.ones_like(disparity))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"one shape, got \(3,\), \(4,\)"):
        fit_scale_shift(rand(3), rand(4), rand(3))
