import pytest
import torch

from lotus2_ros.evaluation.metrics import affine_invariant_depth_error, angular_errors, image_row


def some_depth(height=24, width=40):
    generator = torch.Generator().manual_seed(0)
    return 0.5 + 5 * torch.rand(height, width, generator=generator)


def test_an_affine_disparity_is_perfect_whatever_the_invalid_pixels_hold():
    depth = some_depth()
    disparity = 0.3 / depth - 0.02
    depth[0, :5], depth[1, 0], depth[2, 0] = 0.0, torch.nan, torch.inf
    disparity[0, 0] = 1e6
    error = affine_invariant_depth_error(disparity, depth)
    assert error.abs_rel == pytest.approx(0.0, abs=1e-5) and error.delta1 == 1.0


def test_the_fit_is_plain_least_squares_in_disparity():
    depth = some_depth()
    disparity = torch.rand(24, 40, generator=torch.Generator().manual_seed(1)) + 1 / depth
    x, y = disparity.flatten().double(), (1 / depth).flatten().double()
    scale = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    fitted = 1 / (scale * x + y.mean() - scale * x.mean()).clamp_min(1e-3)
    fitted = fitted.clamp(1e-3, 80)
    truth = depth.flatten().double()
    error = affine_invariant_depth_error(disparity, depth)
    assert error.abs_rel == pytest.approx(float(((fitted - truth).abs() / truth).mean()), rel=1e-6)
    assert error.delta1 == pytest.approx(float((torch.maximum(fitted / truth, truth / fitted) < 1.25).double().mean()))


def test_depth_beyond_the_range_does_not_count():
    depth = some_depth()
    disparity = 1 / depth
    depth[:3] = 500.0
    assert affine_invariant_depth_error(disparity, depth).abs_rel == pytest.approx(0.0, abs=1e-5)


def test_a_constant_disparity_is_fitted_by_the_mean_inverse_depth():
    depth = some_depth()
    expected = (1 / (1 / depth).mean() - depth).abs().div(depth).mean()
    assert affine_invariant_depth_error(torch.full_like(depth, 0.7), depth).abs_rel == pytest.approx(
        float(expected), rel=1e-4
    )


def test_the_image_row_is_perfect_for_a_floor():
    depth = 1 / (image_row(24, 40) * 0.5 + 0.1)
    assert affine_invariant_depth_error(image_row(24, 40), depth).abs_rel == pytest.approx(0.0, abs=1e-5)


def test_too_few_pixels_and_other_shapes_are_refused():
    with pytest.raises(ValueError, match="at least 20 pixels with depth, got 0"):
        affine_invariant_depth_error(image_row(8, 8), torch.zeros(8, 8))
    with pytest.raises(ValueError, match="one shape"):
        affine_invariant_depth_error(image_row(8, 9), torch.ones(8, 8))


def test_angles_of_known_normals_and_invalid_ones_left_out():
    truth = torch.tensor([[[0.0, 0, -1], [0, -1, 0], [1, 0, 0], [torch.nan] * 3]])
    half = 0.5**0.5
    predicted = torch.tensor([[[0.0, 0, -1], [0, -half, -half], [-1, 0, 0], [0, 0, -1]]])
    torch.testing.assert_close(
        angular_errors(predicted, truth), torch.tensor([0.0, 45, 180]).double(), atol=1e-3, rtol=0
    )
