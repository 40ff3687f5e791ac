"""The points around the cells of a small grid, with more weight for those that are near and look alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from lotus2_ros.scale.grid import Tiles, taken

# The cells of a tile share their neighbors: this many points around its middle.
NEIGHBORS = 20
# They are searched in larger tiles first, by these factors, and then among the points found for the tile around. For
# each tile this many are found: as many as are needed if points are spread evenly, times CANDIDATES. Tiles that would
# leave more than a share WORTH of the points are passed over.
SEARCH, CANDIDATES, WORTH = (8, 4, 2, 1), 1.3, 0.3
# A point at a distance of d weighs 1 / (d^2 + SOFT)^POWER (Shepard 1968).
SOFT, POWER = 0.3, 3


@dataclass(frozen=True)
class Samples:
    """Places (...) and what is seen there."""

    place: Tensor  # (2, ...) down and across in cells
    features: Tensor  # (C, ...) which differ by 1 at an edge


@dataclass(frozen=True)
class Neighbors:
    """Points around groups of places, and how far they are from each place."""

    index: Tensor  # (G, K) of the points around each group
    apart: Tensor  # (G, K, P) from each place of the group: d^2 + SOFT

    def of(self, values: Tensor) -> Tensor:
        """The values (..., N) of points at the neighbors (..., G, K, 1)."""
        return taken(values, self.index)[..., None]

    def at(self, place: Tensor, values: Tensor) -> tuple[Neighbors, Tensor]:
        """The neighbors of some places (N,), each a group of its own, and the values (G, K, P) there: (N, K, 1).

        The places are counted over all groups.
        """
        count, size = self.apart.shape[1:]
        group = place // size
        number = (group * count * size + place % size)[:, None] + torch.arange(0, count * size, size)
        apart, values = (taken(each.flatten(), number)[..., None] for each in (self.apart, values))
        return Neighbors(self.index.index_select(0, group), apart), values

    def without(self, point: Tensor) -> Neighbors:
        """The neighbors without one point (G,) of each group."""
        return Neighbors(self.index, self.apart.masked_fill((self.index == point[:, None])[..., None], math.inf))

    def mean(self, values: Tensor, believed: Tensor, distance: float, power: float = POWER) -> tuple[Tensor, Tensor]:
        """Mean (..., G, P) of values (G, K, P) and a zero at ``distance``; and the sum of the values' weights.

        ``believed``: (..., N) from 0 to 1, a factor on the weights of points. ``power``: of the distance, see POWER.
        """
        weight = self.of(believed) / self.apart**power
        points = weight.sum(-2)
        return weight.mul_(values).sum(-2) / (points + distance ** (-2 * power)), points


def find_neighbors(tiles: Tiles, cells: Samples, points: Samples) -> Neighbors:
    """The neighbors of the cells (T, P) among points (N,), in groups of a tile.

    A distance of 1 is the spacing of the points, or a difference of 1 of a feature.
    """
    index = _nearest(tiles, points.place)
    spacing = tiles.spacing(points.place.shape[1])
    here, there = ((each.place / spacing, each.features) for each in (cells, points))
    of_cells, of_points = _squares(*here), _squares(*there)
    # |a - b|^2 + SOFT = |a|^2 + SOFT - 2 a . b + |b|^2, as one product of matrices for each tile.
    left = torch.cat((-2 * torch.cat(there), of_points + SOFT, torch.ones_like(of_points)))
    right = torch.cat((*here, torch.ones_like(of_cells), of_cells))
    apart = taken(left, index).permute(1, 2, 0) @ right.transpose(0, 1)
    return Neighbors(index, apart.clamp_min_(SOFT))


def _squares(place: Tensor, features: Tensor) -> Tensor:
    return place.square().sum(0, keepdim=True) + features.square().sum(0, keepdim=True)


def _nearest(tiles: Tiles, places: Tensor) -> Tensor:
    """The points (T, K), of those at ``places`` (2, N), that are nearest to the middle of each tile."""
    count = places.shape[1]
    density = math.pi * count / (tiles.height * tiles.width)
    found, around = torch.arange(count)[None], math.inf
    for side in (factor * tiles.side for factor in SEARCH):
        # The points of a circle that contains the circles of the NEIGHBORS of all smallest tiles in this one.
        needed = density * ((NEIGHBORS / density) ** 0.5 + (side - tiles.side) / 2**0.5) ** 2
        wanted = min(math.ceil(CANDIDATES * needed), count) if side > tiles.side else min(NEIGHBORS, count)
        if side > tiles.side and wanted > WORTH * found.shape[1]:
            continue
        middles, outer = _search_tiles(tiles.height, tiles.width, side, around)
        apart = (taken(places, found).index_select(1, outer) - middles[..., None]).square_().sum(0)
        found = found.index_select(0, outer).gather(1, _smallest(apart, wanted))
        around = side
    return found


def _smallest(values: Tensor, count: int) -> Tensor:
    """The numbers (G, count) of the smallest values (G, N), which are >= 0, in any order; on the host."""
    # In a third of torch.topk's time: numpy partitions integers by instructions for many values at once. These have a
    # value's exponent and first digits, in the order of the values, before its number.
    last = (1 << (values.shape[1] - 1).bit_length()) - 1
    numbered = (
        values.view(torch.int32).bitwise_and_(~last).bitwise_or_(torch.arange(values.shape[1], dtype=torch.int32))
    )
    return torch.from_numpy(np.partition(numbered.numpy(), count - 1)[:, :count]).bitwise_and_(last).long()


@lru_cache(maxsize=64)
def _search_tiles(height: int, width: int, side: int, around: float) -> tuple[Tensor, Tensor]:
    """The middles (2, T) of tiles, and the number (T,) of the larger tile, of side ``around``, that each is in."""
    middles = Tiles(height, width, side).middles()
    down, across = middles // around
    return middles, (down * math.ceil(width / around) + across).long()
