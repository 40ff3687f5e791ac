"""The points around the cells of a grid, and their weights."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lotus2_ros.scale.grid import Tiles
from lotus2_ros.scale.interpolation import NEIGHBORS, SOFT, Samples, find_neighbors

HEIGHT, WIDTH, SIDE = 30, 50, 4  # no multiples of the side of a tile
TILES = Tiles(HEIGHT, WIDTH, SIDE)
GRID = torch.stack(torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij"))
FEATURE = torch.where(GRID[1] < 20, 0.0, 1.0)


def points(count, seed=0):
    """Places and a feature (3, N) of random points."""
    places = torch.rand(2, count, generator=torch.Generator().manual_seed(seed)) * torch.tensor([[HEIGHT], [WIDTH]])
    v, u = places.long()
    return torch.cat((places, FEATURE[v, u][None]))


def neighbors(given):
    cells = Samples(TILES.split(GRID), TILES.split(FEATURE[None]))
    return find_neighbors(TILES, cells, Samples(given[:2], given[2:]))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9))
def test_a_grid_in_tiles_is_the_grid_again(height, width, side):
    tiles = Tiles(height, width, side)
    grid = torch.arange(height * width, dtype=torch.float32).view(height, width)
    parts = tiles.split(grid)
    torch.testing.assert_close(tiles.join(parts), grid)
    torch.testing.assert_close(tiles.join(tiles.split(torch.stack((grid, -grid)))), torch.stack((grid, -grid)))
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    numbers = tiles.of(torch.stack((v.flatten(), u.flatten())) + 0.5)
    torch.testing.assert_close(parts.flatten()[numbers], grid.flatten())


@settings(max_examples=20, deadline=None)
@given(count=st.integers(20, 1500), seed=st.integers(0, 99))
def test_each_tile_has_the_points_nearest_to_its_middle(count, seed):
    given_points = points(count, seed)
    index = neighbors(given_points).index
    distance = torch.cdist(TILES.middles().T, given_points[:2].T)
    found = distance.gather(1, index).sort(1).values
    expected = distance.sort(1).values[:, : min(NEIGHBORS, count)]
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_nearly_all_the_nearest_points_are_found_on_the_lines_of_a_lidar():
    given_points = points(1200)
    given_points[0] = (given_points[0] / HEIGHT * 12).floor() / 12 * HEIGHT / 2 + HEIGHT / 2  # 12 lines, below
    distance = torch.cdist(TILES.middles().T, given_points[:2].T)
    found = distance.gather(1, neighbors(given_points).index).sort(1).values
    missed = found > distance.sort(1).values[:, :NEIGHBORS] * 1.02
    assert missed.float().mean() < 0.05


def test_the_distance_counts_place_and_features():
    given_points = points(200)
    near = neighbors(given_points)
    spacing = (HEIGHT * WIDTH / 200) ** 0.5
    tile, cell = divmod(int(TILES.of(torch.tensor([[7.5], [19.5]]))), SIDE**2)
    here = torch.tensor([[7.5 / spacing], [19.5 / spacing], [0.0]])
    there = given_points[:, near.index[tile]] / torch.tensor([[spacing], [spacing], [1.0]])
    torch.testing.assert_close(near.apart[tile, :, cell], (here - there).square().sum(0) + SOFT, rtol=1e-3, atol=1e-3)


def test_no_point_is_told_itself():
    given_points = points(200)
    near = neighbors(given_points)
    values = torch.zeros(200)
    values[17] = 1.0
    own = TILES.of(given_points[:2])
    ones = torch.ones(200)
    told = near.mean(near.of(values), ones, math.inf)[0].flatten()[own]
    around, told_there = near.at(own, near.of(values).expand_as(near.apart))
    torch.testing.assert_close(around.mean(told_there, ones, math.inf)[0][:, 0], told)
    held_out, _ = around.without(torch.arange(200)).mean(told_there, ones, math.inf)
    assert told[17] > 0.05 and held_out[17, 0] == 0 and held_out.max() > 0.05


def test_far_from_all_points_the_mean_falls_to_zero_and_the_weights_too():
    given_points = points(100)
    given_points[1] *= 0.2  # all in the left fifth
    near = neighbors(given_points)
    mean, weights = near.mean(near.of(torch.ones(100)), torch.ones(100), 2.0)
    mean, share = TILES.join(mean), TILES.join(weights / (weights + 2.0**-6))
    torch.testing.assert_close(mean, share)
    assert share[:, :8].min() > 0.9 and share[:, -10:].max() < 0.1


def test_a_point_that_is_not_believed_says_nothing():
    near = neighbors(points(50))
    believed = torch.ones(50)
    believed[3] = 0
    values = torch.zeros(50)
    values[3] = 1e3
    assert near.mean(near.of(values), believed, 2.0)[0].abs().max() == 0


@pytest.mark.parametrize("count", [1, SIDE, NEIGHBORS - 1])
def test_fewer_points_than_neighbors(count):
    near = neighbors(points(count))
    assert near.index.shape[1] == count and torch.isfinite(near.apart).all()
