import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lotus2_ros.scale.fit import AlignmentError, fit_scale_shift

SEEDS = st.integers(0, 10_000)


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def noisy_line(seed, outliers=0.4, noise=0.01, count=200):
    """Disparity and inverse depth of a line of scale 0.7 and shift 0.05, the first points anywhere in its range."""
    disparity = rand(count, seed=seed).double()
    generator = torch.Generator().manual_seed(seed + 1)
    inverse_depth = 0.7 * disparity + 0.05
    inverse_depth *= 1 + noise * torch.randn(count, generator=generator)
    gross = round(outliers * count)
    inverse_depth[:gross] = 0.05 + 0.7 * torch.rand(gross, generator=generator).double()
    return disparity, inverse_depth


def weighted_least_squares(disparity, inverse_depth, weight):
    design = torch.stack((disparity, torch.ones_like(disparity)), dim=1).double() * weight.double().sqrt()[:, None]
    return torch.linalg.lstsq(design, inverse_depth.double() * weight.double().sqrt()).solution


@given(scale=st.floats(0.01, 10), shift=st.floats(-1, 1), seed=SEEDS)
def test_exact_without_noise_among_outliers(scale, shift, seed):
    disparity = rand(200, seed=seed)
    inverse_depth = scale * disparity.double() + shift
    inverse_depth[:80] = shift + scale * rand(80, seed=seed + 1)
    got_scale, got_shift, stats = fit_scale_shift(disparity, inverse_depth, torch.ones(200))
    assert got_scale == pytest.approx(scale, rel=1e-6)
    assert got_shift == pytest.approx(shift, abs=1e-6 * max(scale, abs(shift)))
    assert 0.6 <= stats.inlier_fraction < 0.65
    assert stats.points == 200


@pytest.mark.parametrize("where", ["anywhere", "nearer", "farther"])
def test_with_gross_outliers_nearly_as_good_as_told_the_inliers(where):
    ours, told = [], []
    for seed in range(100):
        disparity, inverse_depth = noisy_line(seed)
        if where != "anywhere":
            draw = 0.7 * rand(80, seed=seed + 2)
            inverse_depth[:80] = 0.7 * disparity[:80] + 0.05 + (draw if where == "nearer" else -draw)
        fitted = torch.stack(fit_scale_shift(disparity, inverse_depth, torch.ones(200))[:2])
        ours.append(fitted - torch.tensor([0.7, 0.05]))
        inliers = weighted_least_squares(disparity[80:], inverse_depth[80:], torch.ones(120))
        told.append(inliers - torch.tensor([0.7, 0.05]))
    errors = [torch.stack(found).abs().median(dim=0).values for found in (ours, told)]
    assert (errors[0] <= 1.5 * errors[1]).all()


OUTLIERS = {
    "one value": lambda line, draw: torch.full_like(line, 1 / 65.535),
    "one value in the range": lambda line, draw: torch.full_like(line, 0.3),
    "one value, nearer": lambda line, draw: torch.full_like(line, 2.0),
    "farther": lambda line, draw: line - 0.7 * draw,
    "nearer": lambda line, draw: line + 0.7 * draw,
    "much nearer": lambda line, draw: line + 0.5 + 5 * draw,
    "on both sides": lambda line, draw: line + 1.4 * (draw - 0.5),
}


@settings(deadline=None, max_examples=40)
@given(kind=st.sampled_from(sorted(OUTLIERS)), share=st.floats(0, 0.4), noise=st.floats(0, 0.02), seed=SEEDS)
def test_up_to_40_percent_outliers_on_one_or_both_sides_do_not_move_the_fit(kind, share, noise, seed):
    count = 400
    disparity, draw = rand(2, count, seed=seed).double()
    line = 0.7 * disparity + 0.05
    noisy = line * (1 + noise * torch.randn(count, generator=torch.Generator().manual_seed(seed + 1)))
    inverse_depth = torch.where(torch.arange(count) < share * count, OUTLIERS[kind](line, draw), noisy)
    scale, shift, _ = fit_scale_shift(disparity, inverse_depth, torch.ones(count))
    assert scale == pytest.approx(0.7, rel=0.05) and shift == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("share", [0.37, 0.4, 0.47])
@pytest.mark.parametrize("value", [1 / 65.535, 1 / 0.3])
def test_invalid_pixels_with_one_value_do_not_win_against_a_noisy_model(share, value):
    """As a 16UC1 depth image with 65535 where there is no depth, and a small network."""
    generator = torch.Generator().manual_seed(0)
    disparity = torch.rand(4000, generator=generator).double()
    inverse_depth = 0.08 * disparity + 0.39 + 0.045 * torch.randn(4000, generator=generator)
    clean = fit_scale_shift(disparity, inverse_depth, torch.ones(4000))
    invalid = torch.rand(4000, generator=generator) < share
    scale, shift, stats = fit_scale_shift(disparity, torch.where(invalid, value, inverse_depth), torch.ones(4000))
    assert scale == pytest.approx(float(clean[0]), rel=0.1) and shift == pytest.approx(float(clean[1]), rel=0.03)
    assert stats.inlier_fraction < 1.05 * (1 - share)


def test_a_wall_of_one_depth_counts_where_it_agrees():
    disparity = rand(200).double()
    disparity[:120] = 0.5
    scale, shift, stats = fit_scale_shift(disparity, 0.7 * disparity + 0.05, torch.ones(200))
    assert (scale, shift) == (pytest.approx(0.7), pytest.approx(0.05)) and stats.inlier_fraction == 1


@given(seed=SEEDS)
def test_without_outliers_it_is_weighted_least_squares(seed):
    """With errors of a distribution without tails, where nothing is far out."""
    disparity = rand(200, seed=seed).double()
    inverse_depth = 0.7 * disparity + 0.05 + 0.01 * (rand(200, seed=seed + 1) - 0.5)
    weight = 10 ** rand(200, seed=seed + 2)
    scale, shift, stats = fit_scale_shift(disparity, inverse_depth, weight)
    wanted = weighted_least_squares(disparity, inverse_depth, weight)
    assert torch.stack((scale, shift)).tolist() == pytest.approx(wanted.tolist(), abs=1e-3 * 0.7)
    assert stats.inlier_fraction == 1


def test_errors_of_a_normal_distribution_change_weighted_least_squares_little():
    differences = []
    for seed in range(100):
        disparity, inverse_depth = noisy_line(seed, outliers=0, noise=0.002)
        weight = 10 ** rand(200, seed=seed + 3)
        fitted = torch.stack(fit_scale_shift(disparity, inverse_depth, weight)[:2])
        differences.append(fitted - weighted_least_squares(disparity, inverse_depth, weight))
    assert (torch.stack(differences).abs().median(dim=0).values <= 1e-3 * 0.7).all()


def test_long_tails_are_not_taken_for_outliers():
    """Student's t with three degrees of freedom, as wide as a small network's errors."""
    ours, plain = [], []
    for seed in range(100):
        disparity, inverse_depth = noisy_line(seed, outliers=0, noise=0)
        normal = torch.randn(4, 200, generator=torch.Generator().manual_seed(seed)).double()
        inverse_depth += 0.05 * normal[0] / normal[1:].square().mean(dim=0).sqrt()
        scale, _, stats = fit_scale_shift(disparity, inverse_depth, torch.ones(200))
        ours.append(abs(float(scale) - 0.7))
        plain.append(abs(float(weighted_least_squares(disparity, inverse_depth, torch.ones(200))[0]) - 0.7))
        assert stats.inlier_fraction > 0.85
    assert torch.tensor(ours).median() <= torch.tensor(plain).median()


def test_weights_decide_between_two_values():
    disparity = torch.cat((torch.zeros(30), torch.ones(30), torch.ones(30)))
    inverse_depth = torch.cat((torch.zeros(30), torch.full((30,), 1.0), torch.full((30,), 1.1)))
    light = torch.cat((torch.ones(60), torch.full((30,), 1e-3)))
    heavy = torch.cat((torch.ones(30), torch.full((30,), 1e-3), torch.ones(30)))
    assert fit_scale_shift(disparity, inverse_depth, light)[0] == pytest.approx(1, abs=1e-3)
    assert fit_scale_shift(disparity, inverse_depth, heavy)[0] == pytest.approx(1.1, abs=1e-3)


def test_weights_decide_which_points_are_the_outliers():
    disparity = rand(200)
    minority = torch.arange(200) < 50
    inverse_depth = torch.where(minority, 2 * disparity + 3, 6 - disparity * 0.5)
    scale, shift, stats = fit_scale_shift(disparity, inverse_depth, torch.where(minority, 10.0, 1.0))
    assert (scale, shift) == (pytest.approx(2, rel=1e-5), pytest.approx(3, rel=1e-5))
    assert stats.inlier_fraction == pytest.approx(0.25, abs=0.02)


@given(factor=st.floats(1e-3, 1e3), offset=st.floats(-1, 1), seed=SEEDS)
def test_inverse_depth_in_another_unit_gives_the_same_line(factor, offset, seed):
    disparity, inverse_depth = noisy_line(seed)
    scale, shift, stats = fit_scale_shift(disparity, inverse_depth, torch.ones(200))
    changed = fit_scale_shift(disparity, factor * (inverse_depth + offset), torch.ones(200))
    assert changed[0] == pytest.approx(float(factor * scale), rel=1e-6)
    assert changed[1] == pytest.approx(float(factor * (shift + offset)), rel=1e-6, abs=1e-6 * factor)
    assert changed[2].inlier_fraction == stats.inlier_fraction


@given(seed=SEEDS)
def test_order_does_not_matter(seed):
    disparity, inverse_depth = noisy_line(seed, count=1000)
    weight = 0.5 + rand(1000, seed=seed)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(seed))
    fits = [
        torch.stack(fit_scale_shift(disparity[index], inverse_depth[index], weight[index])[:2])
        for index in (torch.arange(1000), order)
    ]
    assert fits[0].tolist() == pytest.approx(fits[1].tolist(), abs=1e-3)


def test_a_batch_is_fitted_one_by_one():
    disparity = rand(2, 3, 100)
    inverse_depth = (0.1 + rand(2, 3, 1, seed=1)) * disparity + rand(2, 3, 1, seed=2)
    inverse_depth[..., :30] = rand(2, 3, 30, seed=3)
    weight = 0.1 + rand(2, 3, 100, seed=4)
    weight[0, 1] = 0
    scale, shift, stats = fit_scale_shift(disparity, inverse_depth, weight)
    assert scale.shape == shift.shape == stats.points.shape == stats.residual.shape == (2, 3)
    for index in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
        one = fit_scale_shift(*(values[tuple(index)] for values in (disparity, inverse_depth, weight)))
        assert scale[tuple(index)] == pytest.approx(float(one[0]), rel=1e-9, nan_ok=True)
        assert shift[tuple(index)] == pytest.approx(float(one[1]), rel=1e-9, nan_ok=True)
    assert stats.refusal.tolist() == [[0, 1, 0], [0, 0, 0]]
    assert torch.isnan(scale).tolist() == [[False, True, False], [False, False, False]]


def test_nothing_waits_for_the_device():
    """Tensors on the meta device have no values to wait for."""
    values = torch.empty(2, 500, device="meta")
    scale, shift, stats = fit_scale_shift(values, values, values)
    assert scale.device.type == shift.device.type == stats.refusal.device.type == "meta"
    assert scale.shape == shift.shape == stats.refusal.shape == (2,)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_a_weight_of_zero_leaves_a_point_out_whatever_it_is(value):
    disparity, inverse_depth = noisy_line(0)
    weight = torch.ones(200)
    weight[:80] = 0
    clean = fit_scale_shift(disparity[80:], inverse_depth[80:], weight[80:])
    disparity[:40] = inverse_depth[20:80] = value
    scale, shift, stats = fit_scale_shift(disparity, inverse_depth, weight)
    assert (scale, shift) == (pytest.approx(float(clean[0]), rel=1e-3), pytest.approx(float(clean[1]), abs=1e-3))
    assert stats.points == 120


def test_one_absurd_value_changes_nothing():
    disparity, inverse_depth = noisy_line(0)
    weight = torch.ones(200)
    scale, shift, _ = fit_scale_shift(disparity, inverse_depth, weight)
    inverse_depth[0] = 1e12
    again = fit_scale_shift(disparity, inverse_depth, weight)
    assert again[0] == pytest.approx(float(scale), rel=2e-3)
    assert again[1] == pytest.approx(float(shift), abs=1e-3)


def test_points_that_are_not_finite_are_left_out():
    disparity, inverse_depth = rand(60), 2 * rand(60) + 1
    inverse_depth[:10] = torch.inf
    disparity[10:20] = torch.nan
    scale, shift, stats = fit_scale_shift(disparity, inverse_depth, torch.ones(60))
    assert (scale, shift, stats.points) == (pytest.approx(2, rel=1e-5), pytest.approx(1, rel=1e-5), 40)


def test_the_residual_is_the_error_of_what_agrees_as_a_share():
    disparity, inverse_depth = noisy_line(0, noise=0, count=2000)
    inverse_depth += 0.01 * torch.randn(2000, generator=torch.Generator().manual_seed(1))
    _, _, stats = fit_scale_shift(disparity, inverse_depth, torch.ones(2000))
    assert stats.residual == pytest.approx(float(0.01 / inverse_depth.mean()), rel=0.15)


@pytest.mark.parametrize(
    ("disparity", "inverse_depth", "message"),
    [
        (rand(0), rand(0), "at least 20 points, got 0 points$"),
        (rand(1), rand(1), "at least 20 points, got 1 points"),
        (rand(19), rand(19), "at least 20 points, got 19 points"),
        (
            rand(19, seed=1).repeat(2)[:25],
            torch.cat((rand(19, seed=1), 9 * rand(6))),
            "20 points that agree, got 25 points",
        ),
        (torch.full((50,), 0.5), rand(50), "disparity that varies"),
        (0.5 + 1e-8 * rand(50).double(), rand(50), "disparity that varies"),
        (rand(50), 1 + 0.1 * rand(50, seed=1), "disparity that varies where points agree, by more than its errors"),
        (rand(50), 1 - rand(50), "near points to have more disparity"),
        (rand(50), torch.full((50,), 1 / 65.535), "not one value repeated"),
    ],
)
def test_data_that_determine_nothing_are_refused(disparity, inverse_depth, message):
    scale, shift, stats = fit_scale_shift(disparity, inverse_depth, torch.ones_like(disparity))
    assert torch.isnan(scale) and torch.isnan(shift)
    with pytest.raises(AlignmentError, match=message):
        stats.check()


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"one shape, got \(3,\), \(4,\)"):
        fit_scale_shift(rand(3), rand(4), rand(3))
