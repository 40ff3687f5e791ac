import torch

from lotus2_ros.geometry.depth import disparity_to_depth, valid_depth


def test_depth_is_the_inverse_of_scaled_and_shifted_disparity():
    depth = disparity_to_depth(torch.tensor([[0.0, 0.5], [1.0, 0.25]]), scale=0.8, shift=0.2)
    torch.testing.assert_close(depth, torch.tensor([[5.0, 1 / 0.6], [1.0, 2.5]]))


def test_at_and_beyond_infinity_is_nan():
    depth = disparity_to_depth(torch.tensor([0.0, 0.1, 0.2]), scale=1.0, shift=-0.1)
    assert torch.isnan(depth[:2]).all() and torch.isfinite(depth[2])


def test_valid_depth_is_finite_and_positive():
    depth = torch.tensor([1.0, 0.0, -1.0, torch.nan, torch.inf])
    assert valid_depth(depth).tolist() == [True, False, False, False, False]
