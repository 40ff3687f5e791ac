import math

import pytest
import torch
import torch.nn.functional as F

from lotus2_ros.evaluation.boundary import boundary_score

TRUTH = torch.full((24, 40), 6.0)
TRUTH[6:15, 10:25] = 2.0
TRUTH[0:4] = torch.inf  # sky


def test_the_truth_has_all_edges_whatever_its_scale():
    for depth in (TRUTH, 7 * TRUTH):
        score = boundary_score(depth, TRUTH)
        assert (score.precision, score.recall, score.f1) == (1.0, 1.0, 1.0)


def test_blur_and_shift_lose_edges_and_a_constant_has_none():
    inverse = 1 / TRUTH
    blurred = 1 / F.avg_pool2d(F.pad(inverse[None, None], (2, 2, 2, 2), mode="replicate"), 5, 1)[0, 0]
    shifted = TRUTH.roll(1, dims=1)
    exact, soft, moved = (boundary_score(depth, TRUTH) for depth in (TRUTH, blurred, shifted))
    assert 0 < soft.f1 < 0.7 * exact.f1
    assert 0 < moved.f1 < exact.f1  # edges along the shift stay
    nothing = boundary_score(torch.full_like(TRUTH, 3.0), TRUTH)
    assert (nothing.precision, nothing.recall, nothing.f1) == (0.0, 0.0, 0.0)


def test_what_is_enlarged_scores_low_however_good_it_is(view):
    exact = view.depth[None, None].double()
    large = F.interpolate(exact, scale_factor=2)[0, 0]
    enlarged = 1 / F.interpolate(1 / exact, scale_factor=2, mode="bilinear", align_corners=False)[0, 0]
    assert boundary_score(large, large).f1 == 1.0 and boundary_score(enlarged, large).f1 < 0.5


def test_precision_and_recall_by_hand():
    truth = torch.tensor([[1.0, 2.0, 2.0, 4.0]])
    # One edge of two found, and one that is none; a step the other way is another edge.
    predicted = torch.tensor([[1.0, 2.0, 3.0, 3.0]])
    score = boundary_score(predicted, truth)
    assert (score.precision, score.recall, score.f1) == (0.5, 0.5, 0.5)
    assert boundary_score(truth.flip(1), truth).f1 == 0.0


def test_small_steps_count_at_low_thresholds_only_with_smaller_weights():
    truth = torch.tensor([[1.0, 2.0]])
    predicted = torch.tensor([[1.0, 1.1]])
    # Thresholds 1.05, 1.0722, 1.0944 of ten from 1.05 to 1.25, weighted with themselves.
    weights = [1.05 + i * 0.2 / 9 for i in range(10)]
    assert boundary_score(predicted, truth).recall == pytest.approx(sum(weights[:3]) / sum(weights))


def test_unknown_truth_does_not_count_and_without_edges_there_is_no_score():
    truth = TRUTH.clone()
    truth[:, 20:] = torch.nan
    wrong = TRUTH.clone()
    wrong[:, 30:] = 1.0
    assert boundary_score(wrong, truth).precision == 1.0
    assert math.isnan(boundary_score(TRUTH, torch.full_like(TRUTH, 2.0)).f1)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"one shape, got \(2, 3\)"):
        boundary_score(torch.ones(2, 3), torch.ones(3, 2))
