"""Which measurements of a frame are held out, and what depth is there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lotus2_ros.geometry.depth import valid_depth
from lotus2_ros.scale.reference import Reference

TILES = 16  # along each side of the image


@dataclass(frozen=True)
class HeldOut:
    """Measurements that are not given to the scale: places (N,) down and across from 0 to 1, and depth (N,) in m."""

    down: Tensor
    across: Tensor
    depth: Tensor

    def predicted(self, depth: Tensor) -> Tensor:
        """Depth (N,) of a prediction (H, W) at these places."""
        rows, columns = (self.down * depth.shape[0]).long(), (self.across * depth.shape[1]).long()
        return depth[rows, columns]


def split(reference: Reference, share: float, seed: int) -> tuple[Reference, HeldOut]:
    """The reference without the measurements in some tiles of the image, and those.

    Tiles, because the neighbor of a measurement knows its depth. ``share`` of them is held out, others in every frame.
    """
    height, width = reference.depth.shape
    chosen = torch.rand((TILES, TILES), generator=torch.Generator().manual_seed(seed)) < share
    rows = torch.arange(height) * TILES // height
    columns = torch.arange(width) * TILES // width
    mask = chosen[rows][:, columns]
    v, u = torch.nonzero(mask & valid_depth(reference.depth), as_tuple=True)
    held = HeldOut((v + 0.5) / height, (u + 0.5) / width, reference.depth[v, u])
    return replace(reference, depth=reference.depth.masked_fill(mask, torch.nan)), held
