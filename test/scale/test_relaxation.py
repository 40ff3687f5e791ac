"""Surfaces with given slopes, and with steps between them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lotus2_ros.scale.relaxation import STEP, relax

HEIGHT, WIDTH = 30, 50
ROWS, COLUMNS = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
HELD = torch.full((HEIGHT, WIDTH), 0.03)


def slopes(down, across):
    return torch.stack((torch.full((HEIGHT, WIDTH), down), torch.full((HEIGHT, WIDTH), across)))


def noise(deviation, seed=0):
    return deviation * torch.randn(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=20, deadline=None)
@given(down=st.floats(-0.1, 0.1), across=st.floats(-0.1, 0.1), start=st.floats(-2, 4))
def test_a_surface_that_has_its_slopes_stays(down, across, start):
    surface = start + down * ROWS + across * COLUMNS
    found = relax(surface, slopes(down, across), surface, HELD)
    torch.testing.assert_close(found, surface, atol=1e-4, rtol=0)


def test_a_rough_surface_gets_its_slopes_and_keeps_its_place():
    surface = 1 + 0.02 * ROWS - 0.01 * COLUMNS
    rough = surface + noise(0.01)
    found = relax(rough, slopes(0.02, -0.01), rough, HELD)
    down, before = ((each.diff(dim=0) - 0.02).std() for each in (found, rough))
    assert down < 0.25 * before
    assert abs(float((found - surface).mean())) < 1e-3


def test_a_step_stays_sharp():
    surface = torch.where(COLUMNS < 20, 0.0, 0.5) + 0.02 * ROWS
    rough = surface + noise(0.005)
    found = relax(rough, slopes(0.02, 0.0), rough, HELD)
    assert (found - surface).abs().max() < 0.01


def test_a_wrong_target_does_not_count():
    surface = 0.02 * ROWS.float()
    target, weight = surface.clone(), HELD.clone()
    target[10, 20], weight[10, 20] = 3.0, 2.0
    found = relax(surface, slopes(0.02, 0.0), target, weight)
    assert (found - surface).abs().max() < 0.1 * STEP


def test_a_cell_with_a_large_weight_is_followed_by_those_around_it():
    surface = 0.02 * ROWS.float()
    target, weight = surface.clone(), HELD.clone()
    target[10, 20], weight[10, 20] = surface[10, 20] + 0.01, 2.0
    found = relax(surface, slopes(0.02, 0.0), target, weight) - surface
    assert found[10, 20] > 0.002 and 0.5 * found[10, 20] < found[10, 21] < found[10, 20] and found[0, 0] < 1e-3


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3)])
def test_small_grids(shape):
    start = torch.linspace(0, 1, shape[0] * shape[1]).view(shape)
    down, across = (start.diff(dim=dim).flatten()[:1].sum() for dim in (0, 1))  # a plane
    rise = torch.stack((down.expand(shape), across.expand(shape)))
    torch.testing.assert_close(relax(start, rise, start, torch.full(shape, 0.03)), start, atol=1e-5, rtol=0)


def test_the_end_of_a_row_is_not_beside_the_next_one():
    """Rows that differ by less than a step, in a surface that is held only by its first column."""
    surface = 0.02 * ROWS.float()
    start, weight = surface.clone(), torch.full_like(surface, 1e-6)
    start[:, -1] += noise(0.01)[:, 0]
    weight[:, 0] = 1.0
    found = relax(start, slopes(0.02, 0.0), surface, weight)
    torch.testing.assert_close(found[:, :10], surface[:, :10], atol=1e-5, rtol=0)
