"""Where rays meet the triangles of a world."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import open3d as o3d
import torch
from torch import Tensor

from lotus2_ros.scenes.builder import ScenePart


@dataclass(frozen=True)
class Hit:
    """Where rays end: how far in lengths of their directions, which part (-1: none), its unit normal toward the origin,
    and where in its own texture, NaN where the part has no uv."""

    distance: Tensor
    part: Tensor
    normals: Tensor
    uv: Tensor

    def __getitem__(self, chosen: Tensor) -> Hit:
        return Hit(self.distance[chosen], self.part[chosen], self.normals[chosen], self.uv[chosen])


def raycasting(parts: list[ScenePart]) -> o3d.t.geometry.RaycastingScene:
    starts = np.cumsum([0] + [len(part.vertices) for part in parts])
    vertices = np.concatenate([part.vertices for part in parts]).astype(np.float32)
    triangles = np.concatenate([part.triangles + start for part, start in zip(parts, starts, strict=False)])
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(o3d.core.Tensor(vertices), o3d.core.Tensor(triangles.astype(np.uint32)))
    return scene


def uv_of(parts: list[ScenePart]) -> Tensor:
    """(triangles, 3, 2) of all parts, NaN where they have none."""
    none = [np.full((len(part.triangles), 3, 2), np.nan, np.float32) for part in parts]
    own = [empty if part.uv is None else part.uv for part, empty in zip(parts, none, strict=True)]
    return torch.from_numpy(np.concatenate(own))
