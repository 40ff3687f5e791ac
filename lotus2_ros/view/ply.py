"""Point clouds and meshes as PLY files."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import open3d as o3d
import torch
from torch import Tensor

# Of what Open3D writes: coordinates and normals, in a mesh as float64, and three bytes of color; three indices.
POINT_BYTES, VERTEX_BYTES, TRIANGLE_BYTES = 6 * 4 + 3, 6 * 8 + 3, 1 + 3 * 4
HEADER_BYTES = 1000


def save_ply(path: Path | str, points: Tensor, colors: Tensor, normals: Tensor | None = None) -> None:
    """Write a binary PLY of the finite points.

    points (..., 3) float, colors (..., 3) uint8 RGB, normals (..., 3), in the frame of the points. Raises OSError.
    """
    finite = torch.isfinite(points).all(dim=-1)
    cloud = o3d.t.geometry.PointCloud(o3d.core.Tensor.from_numpy(points[finite].float().cpu().numpy()))
    cloud.point.colors = o3d.core.Tensor.from_numpy(colors[finite].cpu().numpy())
    if normals is not None:
        cloud.point.normals = o3d.core.Tensor.from_numpy(normals[finite].float().cpu().numpy())
    _check_room(Path(path), int(finite.sum()) * POINT_BYTES)
    if not o3d.t.io.write_point_cloud(Path(path), cloud):
        raise OSError(f"{path}: could not be written")


def save_mesh(path: Path, mesh: Any) -> None:
    """Write a binary PLY of an open3d.geometry.TriangleMesh; an earlier file stays until then. Raises OSError."""
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    _check_room(part, len(mesh.vertices) * VERTEX_BYTES + len(mesh.triangles) * TRIANGLE_BYTES)
    if not o3d.io.write_triangle_mesh(str(part), mesh):
        raise OSError(f"{part}: could not be written")
    part.replace(path)


def _check_room(path: Path, size: int) -> None:
    """Open3D takes no notice of a full disk: it prints a line for each value, and reports success."""
    if shutil.disk_usage(path.parent).free < size + HEADER_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
