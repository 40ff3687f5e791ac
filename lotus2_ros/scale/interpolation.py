"""The points around the cells of a small grid, with more weight for those that are near and look alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

# The cells of a tile share their neighbors: this many points around its middle.
NEIGHBORS = 20
# They are searched in larger tiles first, by these factors, and then among the points found for the tile around. For
# each tile this many are found: as many as are needed if points are spread evenly, times CANDIDATES.
SEARCH, CANDIDATES = (8, 4, 2, 1), 1.3
# A point at a distance of d weighs 1 / (d^2 + SOFT)^POWER (Shepard 1968).
SOFT, POWER = 0.3, 3


@dataclass(frozen=True)
class Neighbors:
    """Points around groups of places, and how near they are to each place."""

    index: Tensor  # (G, K) of the points around each group
    nearness: Tensor  # (G, K, P) to each place of the group: 1 / (d^2 + SOFT)

    def of(self, values: Tensor) -> Tensor:
        """The values (..., N) of points at the neighbors (..., G, K, 1)."""
        return taken(values, self.index)[..., None]

    def at(self, values: Tensor, place: Tensor) -> Tensor:
        """The values (G, K, P) at some places (N,), which are counted over all groups: (N, K, 1)."""
        return values[place // values.shape[2], :, place % values.shape[2]][..., None]

    def without_own(self, place: Tensor) -> Neighbors:
        """The neighbors of each point (N,), without the point itself; ``place``: its number, over all groups."""
        index = self.index.index_select(0, place // self.nearness.shape[2])
        others = index != torch.arange(len(place), device=index.device)[:, None]
        return Neighbors(index, self.at(self.nearness, place) * others[..., None])

    def mean(self, values: Tensor, believed: Tensor, distance: float, power: float = POWER) -> tuple[Tensor, Tensor]:
        """Mean (..., G, P) of values (G, K, P) and a zero at ``distance``; and the sum of the values' weights.

        ``believed``: (..., N) from 0 to 1, a factor on the weights of points. ``power``: of the distance, see POWER.
        """
        weight = self.nearness**power * self.of(believed)
        points = weight.sum(-2)
        return weight.mul_(values).sum(-2) / (points + distance ** (-2 * power)), points


@dataclass(frozen=True)
class Tiles:
    """A grid (h, w) in square tiles, each a group of places; the last ones reach beyond it."""

    height: int
    width: int
    side: int

    def spacing(self, count: int) -> float:
        """The distance between ``count`` points in cells, if they are spread evenly."""
        return (self.height * self.width / count) ** 0.5

    def split(self, grid: Tensor) -> Tensor:
        """The cells (C, T, side * side) of each tile of a grid (C, h, w)."""
        return taken(grid.flatten(1), _order(self, grid.device)[0])

    def join(self, tiles: Tensor) -> Tensor:
        """The grid (h, w) from the cells (T, side * side) of each tile."""
        return taken(tiles.flatten(), _order(self, tiles.device)[1])

    def of(self, places: Tensor) -> Tensor:
        """The numbers (N,) of the cells at places (2, N) down and across, counted in one tile after the other."""
        down, across = places.long()
        return _order(self, places.device)[1].flatten().index_select(0, down * self.width + across)

    def middles(self, device: torch.device) -> Tensor:
        """Places (2, T) of the middles of the tiles."""
        counts = (-(-size // self.side) for size in (self.height, self.width))
        sides = ((torch.arange(count, device=device) + 0.5) * self.side for count in counts)
        return torch.stack(torch.meshgrid(*sides, indexing="ij")).flatten(1)


@lru_cache(maxsize=16)  # of the few sizes of grids in a process
def _order(tiles: Tiles, device: torch.device) -> tuple[Tensor, Tensor]:
    """The numbers of cells of the grid in the order of tiles (T, side * side), and the other way round (h, w).

    Beyond the grid a tile repeats the last cells.
    """
    height, width, side = tiles.height, tiles.width, tiles.side
    down, across = (torch.arange(size + -size % side, device=device) for size in (height, width))
    cells = down.clamp_max(height - 1)[:, None] * width + across.clamp_max(width - 1)
    cells = cells.unflatten(1, (-1, side)).unflatten(0, (-1, side)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
    tile = (down // side)[:, None] * (len(across) // side) + across // side
    places = (tile * side + (down % side)[:, None]) * side + across % side
    return cells, places[:height, :width].contiguous()


def find_neighbors(tiles: Tiles, cells: Tensor, points: Tensor) -> Neighbors:
    """The neighbors of the cells, in groups of a tile.

    A distance of 1 is the spacing of the points, or a difference of 1 of a feature.

    Args:
        cells: (2 + C, T, P) places down and across in cells, and features, of the cells of each tile.
        points: (2 + C, N) the same of the points.
    """
    index = _nearest(tiles, points[:2])
    spacing = tiles.spacing(points.shape[1])
    cells, points = (torch.cat((each[:2] / spacing, each[2:])) for each in (cells, points))
    around, here = taken(points, index).permute(1, 2, 0), cells.transpose(0, 1)
    # |a - b|^2 = |a|^2 + |b|^2 - 2 a . b, as one product of matrices for each tile.
    squares = around.square().sum(-1, keepdim=True) + here.square().sum(1, keepdim=True)
    square = torch.baddbmm(squares, around, here, alpha=-2).clamp_min_(0)
    return Neighbors(index, square.add_(SOFT).reciprocal_())


def _nearest(tiles: Tiles, places: Tensor) -> Tensor:
    """The points (T, K), of those at ``places`` (2, N), that are nearest to the middle of each tile."""
    count = places.shape[1]
    density = math.pi * count / (tiles.height * tiles.width)
    found = torch.arange(count, device=places.device)[None]
    for around, side in pairwise((math.inf, *(factor * tiles.side for factor in SEARCH))):
        middles, outer = _search_tiles(tiles.height, tiles.width, side, around, places.device)
        apart = (taken(places, found).index_select(1, outer) - middles[..., None]).square_().sum(0)
        # The points of a circle that contains the circles of the NEIGHBORS of all smallest tiles in this one.
        needed = density * ((NEIGHBORS / density) ** 0.5 + (side - tiles.side) / 2**0.5) ** 2
        wanted = NEIGHBORS if side == tiles.side else math.ceil(CANDIDATES * needed)
        chosen = apart.topk(min(wanted, found.shape[1]), largest=False, sorted=False).indices
        found = found.index_select(0, outer).gather(1, chosen)
    return found


@lru_cache(maxsize=64)
def _search_tiles(height: int, width: int, side: int, around: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """The middles (2, T) of tiles, and the number (T,) of the larger tile, of side ``around``, that each is in."""
    middles = Tiles(height, width, side).middles(device)
    down, across = middles // around
    return middles, (down * math.ceil(width / around) + across).long()


def taken(values: Tensor, index: Tensor) -> Tensor:
    """The values (..., N) at an index (G, K): (..., G, K)."""
    # On a CPU this takes a third of the time of values[..., index].
    return values.index_select(-1, index.flatten()).unflatten(-1, index.shape)


def resized(grid: Tensor, height: int, width: int) -> Tensor:
    """Grids (B, h, w) resized bilinearly to (B, height, width)."""
    return F.interpolate(grid[None], (height, width), mode="bilinear", align_corners=False)[0]


def samples(image: Tensor, height: int, width: int) -> Tensor:
    """Pixels (C, height, width) of an image (H, W, C), spread evenly."""
    # On a CPU this is fast for an image whose pixels are together in memory and for normals, whose planes are.
    return F.interpolate(image.permute(2, 0, 1)[None], (height, width), mode="nearest-exact")[0]
