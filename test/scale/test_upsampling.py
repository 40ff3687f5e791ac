"""Surfaces of a small grid at the image's size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lotus2_ros.scale.grid import resized
from lotus2_ros.scale.upsampling import STEP, upsample_surfaces

CELLS, SIZE = (12, 20), (48, 100)  # 4 x 5 pixels
ROWS, COLUMNS = torch.meshgrid(torch.arange(CELLS[0]) + 0.5, torch.arange(CELLS[1]) + 0.5, indexing="ij")
PIXEL_ROWS, PIXEL_COLUMNS = torch.meshgrid(
    (torch.arange(SIZE[0]) + 0.5) / 4, (torch.arange(SIZE[1]) + 0.5) / 5, indexing="ij"
)


def image(bright):
    """(H, W, 3) uint8: bright where asked, else dark."""
    return torch.where(bright, 200, 40).to(torch.uint8)[..., None].expand(*SIZE, 3).contiguous()


@settings(max_examples=20, deadline=None)
@given(down=st.floats(-0.2, 0.2), across=st.floats(-0.2, 0.2), seed=st.integers(0, 99))
def test_a_plane_is_a_plane_whatever_the_image_shows(down, across, seed):
    shown = torch.randint(0, 256, (*SIZE, 3), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    found = upsample_surfaces(down * ROWS + across * COLUMNS, SIZE, shown)
    expected = down * PIXEL_ROWS + across * PIXEL_COLUMNS
    inside = (slice(2, -2), slice(3, -3))  # at the border there is no cell beyond
    torch.testing.assert_close(found[inside], expected[inside], atol=1e-4, rtol=0)


def test_where_surfaces_go_on_it_is_bilinear():
    smooth = 0.2 * STEP * torch.sin(ROWS) * torch.cos(COLUMNS)
    expected = resized(smooth[None], *SIZE)[0]
    torch.testing.assert_close(upsample_surfaces(smooth, SIZE, image(PIXEL_COLUMNS < 7)), expected)


@pytest.mark.parametrize("edge", [6.6, 7.0, 7.4])
def test_a_step_is_where_the_image_has_its_edge(edge):
    """Within half a cell of where the grid has it."""
    steps = torch.where(COLUMNS < 7, 0.0, 1.0) + 0.05 * ROWS
    found = upsample_surfaces(steps, SIZE, image(edge > PIXEL_COLUMNS))[2:-2]
    expected = torch.where(edge > PIXEL_COLUMNS, 0.0, 1.0) + 0.05 * PIXEL_ROWS
    torch.testing.assert_close(found, expected[2:-2], atol=1e-4, rtol=0)


def test_without_an_image_a_pixel_has_the_surface_of_its_cell():
    found = upsample_surfaces(torch.where(COLUMNS < 7, 0.0, 1.0), SIZE, None)
    torch.testing.assert_close(found, torch.where(PIXEL_COLUMNS < 7, 0.0, 1.0))


def test_no_pixel_lies_between_two_surfaces():
    generator = torch.Generator().manual_seed(0)
    shown = torch.randint(0, 256, (*SIZE, 3), generator=generator).to(torch.uint8)
    steps = torch.where(torch.rand(CELLS, generator=generator) < 0.3, 1.0, 0.0)
    found = upsample_surfaces(steps, SIZE, shown)
    assert ((found == 0) | (found == 1)).all()


@pytest.mark.parametrize("cells", [(1, 20), (12, 1), (1, 1), (2, 2)])
def test_grids_of_one_or_two_cells(cells):
    found = upsample_surfaces(torch.rand(cells), SIZE, image(PIXEL_COLUMNS < 7))
    assert found.shape == SIZE and torch.isfinite(found).all()
