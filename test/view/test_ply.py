"""PLY files on a disk that fills up."""

from __future__ import annotations

from types import SimpleNamespace

import open3d as o3d
import pytest
import torch

from lotus2_ros.view import ply
from lotus2_ros.view.ply import save_mesh, save_ply


@pytest.fixture
def room(monkeypatch):
    """Sets how many bytes are free on the disk."""

    def set_room(size: int) -> None:
        monkeypatch.setattr(ply.shutil, "disk_usage", lambda folder: SimpleNamespace(free=size))

    return set_room


def test_a_full_disk_is_an_error_and_leaves_the_earlier_mesh(tmp_path, room):
    mesh = o3d.geometry.TriangleMesh.create_sphere(1.0, 30)
    mesh.compute_vertex_normals()
    mesh.paint_uniform_color((0.2, 0.4, 0.6))
    path = tmp_path / "mesh.ply"
    save_mesh(path, mesh)
    before = path.read_bytes()
    room(len(before) - 1)
    with pytest.raises(OSError, match=r"No space left on device: .*mesh"):
        save_mesh(path, mesh)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    room(len(before) + ply.HEADER_BYTES)
    save_mesh(path, mesh)


def test_a_cloud_on_a_full_disk_is_an_error(tmp_path, room):
    points, colors = torch.rand(50, 40, 3), torch.zeros(50, 40, 3, dtype=torch.uint8)
    save_ply(tmp_path / "points.ply", points, colors, points)
    size = (tmp_path / "points.ply").stat().st_size
    room(size - 1)
    with pytest.raises(OSError, match="No space left on device"):
        save_ply(tmp_path / "points.ply", points, colors, points)
