import torch
from hypothesis import given
from hypothesis import strategies as st

from lotus2_ros.geometry.depth import (
    affine_depth_to_disparity,
    affine_depth_to_disparity_std,
    disparity_to_depth,
    valid_depth,
)


def test_depth_is_the_inverse_of_scaled_and_shifted_disparity():
    depth = disparity_to_depth(torch.tensor([[0.0, 0.5], [1.0, 0.25]]), scale=0.8, shift=0.2)
    torch.testing.assert_close(depth, torch.tensor([[5.0, 1 / 0.6], [1.0, 2.5]]))


def test_at_and_beyond_infinity_is_nan():
    depth = disparity_to_depth(torch.tensor([0.0, 0.1, 0.2]), scale=1.0, shift=-0.1)
    assert torch.isnan(depth[:2]).all() and torch.isfinite(depth[2])


def test_valid_depth_is_finite_and_positive():
    depth = torch.tensor([1.0, 0.0, -1.0, torch.nan, torch.inf])
    assert valid_depth(depth).tolist() == [True, False, False, False, False]


@given(st.floats(0.01, 20), st.floats(0.1, 50), st.integers(0, 1000))
def test_with_the_right_shift_inverse_depth_is_a_line_in_the_disparity(shift, scale, seed):
    v = torch.rand(200, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    disparity = affine_depth_to_disparity(v, shift)
    assert disparity.min() >= 0 and disparity.max() <= 1
    depth = scale * (v + shift)
    expected = (disparity + shift) / (scale * shift * (1 + shift))
    torch.testing.assert_close(1 / depth, expected, rtol=1e-9, atol=0)
    near_and_far = affine_depth_to_disparity(torch.tensor([0.0, 1.0]), shift)
    torch.testing.assert_close(near_and_far, torch.tensor([1.0, 0.0]))


@given(st.floats(0.05, 10), st.floats(0.0, 1.0))
def test_the_deviation_follows_the_slope(shift, at):
    v, step = torch.tensor(at, dtype=torch.float64), 1e-6
    slope = (affine_depth_to_disparity(v + step, shift) - affine_depth_to_disparity(v - step, shift)).abs() / (2 * step)
    deviation = affine_depth_to_disparity_std(torch.tensor(1.0, dtype=torch.float64), v, shift)
    torch.testing.assert_close(deviation, slope, rtol=1e-4, atol=1e-9)
