import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lotus2_ros.evaluation.uncertainty import depth_sparsification, sparsification

ERRORS = torch.tensor([0.0, 1.0, 2.0, 5.0])


def test_the_true_order_is_perfect_and_the_opposite_worse_than_random():
    perfect, opposite = sparsification(ERRORS, 3 * ERRORS + 1), sparsification(ERRORS, -ERRORS)
    assert perfect.ause == pytest.approx(0) and opposite.ause > opposite.random > 0


def test_by_hand():
    # Means of the first 1, 2, 3, 4 in the true order: 0, .5, 1, 2, of all 2; in the given one: 1, .5, 2, 2.
    found = sparsification(ERRORS, torch.tensor([2.0, 1.0, 4.0, 3.0]))
    assert found.ause == pytest.approx(((1 - 0) + (0.5 - 0.5) + (2 - 1) + (2 - 2)) / 2 / 4)
    assert found.random == pytest.approx(((2 - 0) + (2 - 0.5) + (2 - 1) + (2 - 2)) / 2 / 4)


@given(st.integers(0, 1000))
def test_no_information_is_as_good_as_random(seed):
    generator = torch.Generator().manual_seed(seed)
    found = sparsification(torch.rand(4000, generator=generator), torch.rand(4000, generator=generator))
    assert found.ause == pytest.approx(found.random, abs=0.1)


def test_the_unit_of_neither_matters():
    noise = torch.rand(500, generator=torch.Generator().manual_seed(0))
    error, uncertainty = noise.square(), noise + torch.rand(500, generator=torch.Generator().manual_seed(1))
    first, second = sparsification(error, uncertainty), sparsification(7 * error, 0.1 * uncertainty)
    assert first.ause == pytest.approx(second.ause) and first.random == pytest.approx(second.random)
    assert 0 < first.ause < first.random


def test_a_deviation_of_disparity_counts_by_what_it_is_of_depth():
    """An error of disparity that is the same everywhere is a larger share of the depth of far pixels."""
    generator = torch.Generator().manual_seed(0)
    disparity = 0.1 + torch.rand(40, 60, generator=generator)
    deviation = 0.002 + 0.02 * torch.rand(40, 60, generator=generator)
    truth, depth = 1 / (disparity + deviation), 1 / disparity  # off by one deviation
    truth[0, 0] = torch.nan
    found = depth_sparsification(depth, truth, 3 * deviation)
    assert found.ause == pytest.approx(0, abs=1e-3) and found.random > 0.3
    assert depth_sparsification(depth, truth, torch.ones_like(depth)).ause < found.random


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"expected errors and uncertainties \(N,\), got \(4,\), \(3,\)"):
        sparsification(ERRORS, ERRORS[:3])
