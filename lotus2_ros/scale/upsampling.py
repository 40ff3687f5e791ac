"""Surfaces on a small grid at the image's size: smooth where they go on, with steps at the edges of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce

import numpy as np
import torch
from torch import Tensor

from lotus2_ros.scale.grid import brightness, resized, samples

# Surfaces that differ by more than this in log depth, where four cells meet, do not go on from one to the other.
STEP = 0.03
# A difference in brightness, of 255, between a pixel and the cell that it belongs to.
BRIGHTNESS = 8.0
# Least share of a cell in a pixel next to it.
LEAST = 1e-3


@dataclass(frozen=True)
class PixelPlaces:
    """Where the pixels (H * W,) of an image lie among the cells of a grid (h, w)."""

    cell: Tensor  # (H * W,) the first one of the four cells around a pixel, in the order of the grid's cells
    top: Tensor  # (H,) the row of this cell
    left: Tensor  # (W,) and its column
    below: Tensor  # (H * W,) how far the pixel is below the middle of the first cell, in cells
    beside: Tensor  # (H * W,) how far it is to the right of it
    far: Tensor  # (4, H * W) how unlikely each of the four is for its distance: -2 log of its share in the pixel


def upsample_surfaces(log_depth: Tensor, size: Sequence[int], image: Tensor | None) -> Tensor:
    """The log depth (h, w) of the cells of a grid, at each pixel (H, W) of ``image`` (H, W, 3) uint8.

    It is bilinear between cells whose surfaces go on from one to the other. Elsewhere a pixel takes the surface of one
    of the four cells around it: of one that is near and as bright as the pixel, as in joint bilateral upsampling (Kopf
    et al. 2007), but only of one, so that no pixel lies between two surfaces. Without an image it is the nearest cell.
    The surface of a cell rises as it does towards its neighbors.
    """
    (height, width), (rows, columns) = log_depth.shape, size
    found = resized(log_depth[None], rows, columns)[0]
    if height < 2 or width < 2:
        return found
    slopes = [_slope(log_depth, dim) for dim in (0, 1)]
    places = _places(rows, columns, height, width, log_depth.device)
    steps = _of_pixels(_are_steps(log_depth, *slopes), places)
    if steps.is_cpu:  # NumPy finds them in a third of the time of torch.
        pixels = torch.from_numpy(np.flatnonzero(steps.numpy()))
    else:  # all pixels, because the host would wait for the number of some
        pixels = torch.arange(rows * columns, device=steps.device)
    first = places.cell.index_select(0, pixels)
    unlike = places.far.index_select(1, pixels).unflatten(0, (2, 2))
    if image is not None:
        unlike += _unlike_brightness(first, brightness(image, pixels), image, height, width)
    lower, right = _least(unlike)
    cell = first + (lower * width + right)
    start, rise_down, rise_across = (grid.flatten().index_select(0, cell) for grid in (log_depth, *slopes))
    below = places.below.index_select(0, pixels) - lower.float()
    beside = places.beside.index_select(0, pixels) - right.float()
    surface = start.addcmul_(rise_down, below).addcmul_(rise_across, beside)
    if steps.is_cpu:
        return found.flatten().index_copy_(0, pixels, surface).view(rows, columns)
    return torch.where(steps, surface, found.flatten()).view(rows, columns)


def _of_pixels(quads: Tensor, places: PixelPlaces) -> Tensor:
    """(H * W,) of what is known of each four cells (h - 1, w - 1)."""
    # Rows are copied in a third of the time of columns.
    columns = quads.T.contiguous().index_select(0, places.left)
    return columns.T.contiguous().index_select(0, places.top).flatten()


def _unlike_brightness(first: Tensor, of_pixels: Tensor, image: Tensor, height: int, width: int) -> Tensor:
    """How much brightness ``of_pixels`` (N,) differs (2, 2, N) from that of the four cells from ``first`` (N,) on."""
    of_cells = samples(image[..., 1:2], height, width).flatten().float()
    around = [of_cells.index_select(0, first + offset) for offset in (0, 1, width, width + 1)]
    return ((torch.stack(around) - of_pixels) / BRIGHTNESS).square_().unflatten(0, (2, 2))


def _least(unlike: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column (N,), bool, of the least of four values (2, 2, N)."""
    # On a CPU argmin takes ten times as long.
    is_right = unlike[:, 1] < unlike[:, 0]
    upper, lower = torch.minimum(unlike[:, 0], unlike[:, 1])
    is_lower = lower < upper
    return is_lower, torch.where(is_lower, is_right[1], is_right[0])


def _slope(surface: Tensor, dim: int) -> Tensor:
    """How much it rises (h, w) to the next cell: of both sides the smaller rise, because the other may be a step; 0 if
    they differ in sign. The minmod limiter of van Leer (1979)."""
    rise = surface.diff(dim=dim)
    last = rise.shape[dim] - 1
    # The cells at the border have one neighbor. The rise behind it is as good as one on the other side.
    before = torch.cat((rise.narrow(dim, min(1, last), 1), rise), dim)
    after = torch.cat((rise, rise.narrow(dim, max(0, last - 1), 1)), dim)
    rising, falling = (
        torch.minimum(part.clamp_min(0), other.clamp_min(0)) for part, other in ((before, after), (-before, -after))
    )
    return rising.sub_(falling)


def _are_steps(surface: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Bool (h - 1, w - 1): whether the surfaces of four cells differ where these meet."""
    falling, rising = (down + across) / 2, (down - across) / 2
    corners = (
        (surface + falling)[:-1, :-1],
        (surface + rising)[:-1, 1:],
        (surface - rising)[1:, :-1],
        (surface - falling)[1:, 1:],
    )
    # On a CPU aminmax takes ten times as long.
    return reduce(torch.maximum, corners) - reduce(torch.minimum, corners) > STEP


@lru_cache(maxsize=4)  # of the cameras in a process
def _places(rows: int, columns: int, height: int, width: int, device: torch.device) -> PixelPlaces:
    (top, below), (left, beside) = (_cells_before(*pair, device) for pair in ((rows, height), (columns, width)))
    shares = [
        (vertical[:, None] * horizontal).clamp_min(LEAST).flatten()
        for vertical in (1 - below, below)
        for horizontal in (1 - beside, beside)
    ]
    return PixelPlaces(
        (top[:, None] * width + left).flatten(),
        top,
        left,
        below[:, None].expand(rows, columns).flatten(),
        beside.expand(rows, columns).flatten(),
        -2 * torch.stack(shares).log(),
    )


def _cells_before(pixels: int, cells: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The cell before each of a line of pixels, but not the last cell, and how far the pixel is beyond its middle."""
    at = (torch.arange(pixels, device=device) + 0.5) * (cells / pixels) - 0.5
    before = at.floor().clamp(0, cells - 2)
    return before.long(), at - before
