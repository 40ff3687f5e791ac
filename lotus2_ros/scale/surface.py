"""What the model says of the surfaces at the cells of a small grid and at points: depth, slope and features."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.scale.grid import Tiles, brightness, resized, samples
from lotus2_ros.scale.interpolation import Samples
from lotus2_ros.scale.scale import RelativeGeometry, Scale

# Differences that separate surfaces as much as the mean distance between points does: of log depth, of brightness, of
# 255, and of unit normals: what stands on a floor says little of the floor around it.
EDGE_DEPTH, EDGE_BRIGHTNESS, EDGE_NORMAL = 0.2, 55.0, 0.6
# Least cosine between a normal and its ray: nearly along a surface depth has no slope. And the most that log depth is
# made to rise from one cell to the next: more is an edge, and not a slope.
GRAZING, STEEPEST = 0.1, 0.3


@dataclass(frozen=True)
class SurfaceSamples(Samples):
    """The surfaces at some places (...)."""

    log_depth: Tensor  # (...) by scale and shift
    slope: Tensor | None  # (2, ...) how much log depth rises down and across from one cell to the next, by the normals


def sample_surfaces(
    frame: RelativeGeometry, scale: Scale, tiles: Tiles, down: Tensor, across: Tensor, far: Tensor
) -> tuple[SurfaceSamples, SurfaceSamples]:
    """The surfaces at the cells of ``tiles`` (T, P), and at points (N,) down and across the image, from 0 to 1.

    ``far``: () least inverse depth. A point has the slope of its cell.
    """
    height, width = frame.disparity.shape
    cells, points = _middles(tiles), torch.stack((down * tiles.height, across * tiles.width)).float()
    own, count = tiles.of(points), cells[0].numel()
    pixels = torch.cat((_pixels(tiles, height, width), (down * height).long() * width + (across * width).long()))
    inverse_depth = scale.scale * frame.disparity.flatten().index_select(0, pixels) + scale.shift
    if scale.correction is not None:
        correction = tiles.split(resized(scale.correction[None], tiles.height, tiles.width)).flatten()
        inverse_depth += torch.cat((correction, correction.index_select(0, own)))
    log_depth = torch.maximum(inverse_depth, far).log_().neg_()
    features, slope = [log_depth[None] / EDGE_DEPTH], None
    if frame.image is not None:
        features.append(brightness(frame.image, pixels)[None] / EDGE_BRIGHTNESS)
    if frame.normals is not None:
        # The planes of normals are together in memory.
        normals = frame.normals.permute(2, 0, 1).flatten(1).index_select(1, pixels).nan_to_num()
        features.append(normals / EDGE_NORMAL)
        if frame.camera is not None:
            slope = _slope(normals[:, :count], *_rays(frame.camera, tiles))
    looks = torch.cat(features)
    return (
        SurfaceSamples(
            cells,
            looks[:, :count].unflatten(1, cells.shape[1:]),
            log_depth[:count].view(cells.shape[1:]),
            None if slope is None else slope.view(cells.shape),
        ),
        SurfaceSamples(
            points, looks[:, count:], log_depth[count:], None if slope is None else slope.index_select(1, own)
        ),
    )


@lru_cache(maxsize=16)  # of the few sizes of grids in a process
def _middles(tiles: Tiles) -> Tensor:
    """Places (2, T, P) of the cells' middles."""
    sides = (torch.arange(size) + 0.5 for size in (tiles.height, tiles.width))
    return tiles.split(torch.stack(torch.meshgrid(*sides, indexing="ij")))


@lru_cache(maxsize=16)
def _pixels(tiles: Tiles, height: int, width: int) -> Tensor:
    """The numbers (T * P,) of the pixels of an image in the cells' middles."""
    shrink = torch.tensor([[[height / tiles.height]], [[width / tiles.width]]])
    down, across = (_middles(tiles) * shrink).long()
    return (down * width + across).flatten()


@lru_cache(maxsize=16)  # of the cameras in a process
def _rays(camera: Camera, tiles: Tiles) -> tuple[Tensor, Tensor]:
    """x, y and z (3, 3, T * P) of the cells' rays and of their changes down and across, from one cell to the next; and
    the least -n . r (T * P,) of a normal."""
    rays = samples(camera.rays, tiles.height, tiles.width).cpu().nan_to_num()
    change = torch.gradient(rays, dim=(1, 2))
    least = (GRAZING * rays.norm(dim=0)).clamp_min(1e-6)
    return tiles.split(torch.stack((rays, *change), dim=1)).flatten(2), tiles.split(least).flatten()


def _slope(normals: Tensor, rays: Tensor, least: Tensor) -> Tensor:
    """How much log depth rises (2, N) from one cell to the next, by unit normals (3, N) and what :func:`_rays` has.

    On a plane 1 / z is proportional to n . r, so log depth rises by -(n . dr) / (n . r) from one ray to the next.
    """
    # On a CPU this takes a quarter of the time of a sum over the products.
    products = (rays[0] * normals[0]).addcmul_(rays[1], normals[1]).addcmul_(rays[2], normals[2])
    return products[1:].div_(torch.maximum(-products[0], least)).clamp_(-STEEPEST, STEEPEST)
