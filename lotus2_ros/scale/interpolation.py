"""The points around the cells of a small grid, with more weight for those that are near and look alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Cells along the sides of a tile. The cells of a tile share their neighbors: this many points around its middle.
TILE, NEIGHBORS = 4, 20
# They are searched among those around the middle of a larger tile: this many times what that has and a tile needs.
COARSE_TILE, CANDIDATES = 16, 2
# A point at a distance of d weighs 1 / (d^2 + SOFT)^POWER (Shepard 1968).
SOFT, POWER = 0.3, 3


@dataclass(frozen=True)
class Neighbors:
    """Points around groups of places, and their weights for each place."""

    index: Tensor  # (G, K) of the points around each group
    weight: Tensor  # (G, P, K) for each place of the group

    def of(self, values: Tensor) -> Tensor:
        """The values (..., N) of points at the neighbors (..., G, 1, K)."""
        return values[..., self.index][..., None, :]

    def without_own(self, group: Tensor, place: Tensor) -> Neighbors:
        """The neighbors of each point (N,) at its place of its group, without the point itself."""
        index = self.index[group]
        others = index != torch.arange(len(group), device=index.device)[:, None]
        return Neighbors(index, (self.weight[group, place] * others)[:, None])

    def mean(self, values: Tensor, believed: Tensor, distance: float, power: float = POWER) -> tuple[Tensor, Tensor]:
        """Mean (G, P) of values (G, P, K) and of a zero at ``distance``; and the share of the values in all weights.

        ``believed``: (N,) from 0 to 1, a factor on the weights of points. ``power``: of the distance, see POWER.
        """
        weight = self.weight if power == POWER else self.weight ** (power / POWER)
        weight = weight * self.of(believed)
        points = weight.sum(-1)
        total = points + distance ** (-2 * power)
        return (weight * values).sum(-1) / total, points / total


@dataclass(frozen=True)
class Tiles:
    """A grid (h, w) in square tiles, each a group of places; the last ones reach beyond it."""

    height: int
    width: int
    side: int = TILE

    def spacing(self, count: int) -> float:
        """The distance between ``count`` points in cells, if they are spread evenly."""
        return (self.height * self.width / count) ** 0.5

    def split(self, grid: Tensor) -> Tensor:
        """The cells (C, T, side * side) of each tile of a grid (C, h, w)."""
        padded = F.pad(grid[None], (0, -self.width % self.side, 0, -self.height % self.side), mode="replicate")[0]
        tiles = padded.unflatten(2, (-1, self.side)).unflatten(1, (-1, self.side))
        return tiles.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def join(self, tiles: Tensor) -> Tensor:
        """The grid (h, w) from the cells (T, side * side) of each tile."""
        grid = tiles.unflatten(1, (self.side, self.side)).unflatten(0, (-(-self.height // self.side), -1))
        return grid.transpose(1, 2).flatten(2, 3).flatten(0, 1)[: self.height, : self.width]

    def of(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """The tiles (N,) of places (2, N) down and across in cells, and the cells (N,) in the tiles."""
        down, across = places.long()
        tile = down // self.side * -(-self.width // self.side) + across // self.side
        return tile, down % self.side * self.side + across % self.side

    def middles(self, device: torch.device) -> Tensor:
        """Places (2, T) of the middles of the tiles."""
        counts = (-(-size // self.side) for size in (self.height, self.width))
        sides = ((torch.arange(count, device=device) + 0.5) * self.side for count in counts)
        return torch.stack(torch.meshgrid(*sides, indexing="ij")).flatten(1)


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
    around, here = points[:, index], cells.permute(1, 2, 0)
    # |a - b|^2 = |a|^2 + |b|^2 - 2 a . b, as one product of matrices for each tile.
    squares = here.square().sum(-1, keepdim=True) + around.square().sum(0)[:, None]
    square = torch.baddbmm(squares, here, around.transpose(0, 1), alpha=-2).clamp_min_(0)
    return Neighbors(index, (square + SOFT).reciprocal_() ** POWER)


def _nearest(tiles: Tiles, places: Tensor) -> Tensor:
    """The points (T, K), of those at ``places`` (2, N), that are nearest to the middle of each tile."""
    count = places.shape[1]
    coarse = Tiles(tiles.height, tiles.width, COARSE_TILE)
    apart = torch.cdist(coarse.middles(places.device).T, places.T)
    middles = tiles.middles(places.device)
    expected = NEIGHBORS + count * COARSE_TILE**2 // (tiles.height * tiles.width)
    within = apart.topk(min(CANDIDATES * expected, count), largest=False, sorted=False).indices[coarse.of(middles)[0]]
    apart = (places[:, within] - middles[..., None]).square().sum(0)
    return within.gather(1, apart.topk(min(NEIGHBORS, count), largest=False, sorted=False).indices)


def resized(grid: Tensor, height: int, width: int) -> Tensor:
    """Grids (B, h, w) resized bilinearly to (B, height, width)."""
    return F.interpolate(grid[None], (height, width), mode="bilinear", align_corners=False)[0]
