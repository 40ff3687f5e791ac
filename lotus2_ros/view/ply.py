"""Point clouds as PLY files."""

from __future__ import annotations

from pathlib import Path

import open3d as o3d
import torch
from torch import Tensor


def save_ply(path: Path | str, points: Tensor, colors: Tensor, normals: Tensor | None = None) -> None:
    """Write a binary PLY of the finite points.

    points (..., 3) float, colors (..., 3) uint8 RGB, normals (..., 3), in the frame of the points.
    """
    finite = torch.isfinite(points).all(dim=-1)
    cloud = o3d.t.geometry.PointCloud(o3d.core.Tensor.from_numpy(points[finite].float().cpu().numpy()))
    cloud.point.colors = o3d.core.Tensor.from_numpy(colors[finite].cpu().numpy())
    if normals is not None:
        cloud.point.normals = o3d.core.Tensor.from_numpy(normals[finite].float().cpu().numpy())
    if not o3d.t.io.write_point_cloud(Path(path), cloud):
        raise OSError(f"{path}: could not be written")
