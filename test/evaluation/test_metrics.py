import dataclasses

import numpy as np
import pytest
import torch

from lotus2_ros.evaluation.metrics import affine_invariant_depth_error, depth_error, fit_depth, image_row


def some_depth(height=24, width=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + 5 * torch.rand(height, width, generator=generator)


def independent(z, t):
    """Every metric once more, in NumPy and pixel by pixel where that is plainest."""
    logs = [np.log(a / b) for a, b in zip(z, t, strict=True)]
    n = len(z)
    mean_log = sum(logs) / n
    return {
        "abs_rel": sum(abs(a / b - 1) for a, b in zip(z, t, strict=True)) / n,
        "sq_rel": sum((a - b) * (a - b) / b for a, b in zip(z, t, strict=True)) / n,
        "rmse": np.linalg.norm(z - t) / np.sqrt(n),
        "rmse_log": np.sqrt(sum(x * x for x in logs) / n),
        "log10": sum(abs(x) for x in logs) / n / np.log(10),
        **{f"delta{i}": np.mean([abs(x) < i * np.log(1.25) for x in logs]) for i in (1, 2, 3)},
        "inverse_rmse": np.linalg.norm(1 / z - 1 / t) / np.sqrt(n),
        "si_log": 100 * np.sqrt(sum((x - mean_log) ** 2 for x in logs) / n),
    }


@pytest.mark.parametrize("seed", range(3))
def test_every_metric_agrees_with_an_independent_computation(seed):
    truth = some_depth(seed=seed)
    disparity = torch.rand(24, 40, generator=torch.Generator().manual_seed(100 + seed)) + 0.8 / truth
    truth[:2, ::3], truth[3, 5], truth[4, 6] = torch.nan, torch.inf, 90.0
    valid = (truth < 80).numpy()
    z, t = disparity.numpy().astype(np.float64)[valid], truth.numpy().astype(np.float64)[valid]
    scale, shift = np.polyfit(z, 1 / t, 1)
    fitted = np.clip(1 / np.maximum(scale * z + shift, 1e-3), 1e-3, 80)
    error = dataclasses.asdict(affine_invariant_depth_error(disparity, truth))
    expected = independent(fitted, t)
    assert error.keys() == expected.keys()
    for name, value in expected.items():
        assert error[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name
    assert 0 < error["delta1"] < error["delta2"] < error["delta3"] < 1  # no metric is at its end


def test_an_affine_disparity_is_perfect_whatever_the_invalid_pixels_hold():
    depth = some_depth()
    disparity = 0.3 / depth + 0.02
    depth[0, :5], depth[1, 0], depth[2, 0] = 0.0, torch.nan, torch.inf
    disparity[0, 0] = 1e6
    error = affine_invariant_depth_error(disparity, depth)
    assert error.abs_rel == pytest.approx(0.0, abs=1e-5) and error.delta1 == 1.0


def test_pixels_without_positive_disparity_count_but_are_not_fitted():
    depth = some_depth()
    disparity = 0.3 / depth
    disparity[0] = 0.0
    error = affine_invariant_depth_error(disparity, depth)
    # Fitted exactly by all others, the first row is at 1e-3 and clipped to 80 m.
    assert error.abs_rel == pytest.approx(float((80 / depth[0] - 1).sum() / depth.numel()), rel=1e-4)


def test_depth_is_clipped_to_the_range_and_beyond_it_does_not_count():
    depth = some_depth()
    disparity = 1 / depth
    depth[:3] = 500.0
    assert affine_invariant_depth_error(disparity, depth).abs_rel == pytest.approx(0.0, abs=1e-5)
    fitted = fit_depth(1 / some_depth(), some_depth(), (1.0, 4.0))
    assert (fitted.min(), fitted.max()) == (1.0, 4.0)


def test_a_fit_to_fewer_pixels_takes_the_nearest():
    depth = some_depth(20, 40)
    disparity = torch.full_like(depth, 0.7)
    # Of every second row and column those that a picture of half the size has; the others are anything.
    disparity[::2, ::2] = 0.5 / depth[::2, ::2] + 0.1
    error = (fit_depth(disparity, depth, fit_side=20)[::2, ::2] / depth[::2, ::2] - 1).abs()
    assert error.max() < 1e-4
    assert (fit_depth(disparity, depth)[::2, ::2] / depth[::2, ::2] - 1).abs().max() > 0.1


def test_a_constant_disparity_is_fitted_by_the_mean_inverse_depth():
    depth = some_depth()
    expected = (1 / (1 / depth).mean() - depth).abs().div(depth).mean()
    assert affine_invariant_depth_error(torch.full_like(depth, 0.7), depth).abs_rel == pytest.approx(
        float(expected), rel=1e-4
    )


def test_the_image_row_is_perfect_for_a_floor():
    depth = 1 / (image_row(24, 40) * 0.5 + 0.1)
    assert affine_invariant_depth_error(image_row(24, 40), depth).abs_rel == pytest.approx(0.0, abs=1e-5)


def test_meters_too_short_and_too_long_are_told_apart():
    truth = torch.tensor([1.0, 2.0, 4.0])
    near, far = depth_error(truth / 1.5, truth), depth_error(truth * 1.5, truth)
    assert (near.abs_rel, far.abs_rel) == (pytest.approx(1 / 3), pytest.approx(0.5))
    assert near.si_log == pytest.approx(0, abs=1e-6) and near.rmse_log == pytest.approx(np.log(1.5))


def test_too_few_pixels_and_other_shapes_are_refused():
    with pytest.raises(ValueError, match="at least 20 pixels with depth, got 0"):
        affine_invariant_depth_error(image_row(8, 8), torch.zeros(8, 8))
    with pytest.raises(ValueError, match="one shape"):
        affine_invariant_depth_error(image_row(8, 9), torch.ones(8, 8))
