"""Clouds filtered in another process."""

import subprocess
import sys

import numpy as np
import pytest

from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.ros.cloud_filter_process import REQUEST, CloudFilterProcess, Open3dMissingError, filter_cloud


def cloud(points: np.ndarray, red: int = 200, green: int = 100, blue: int = 50) -> np.ndarray:
    rgb = np.full(len(points), red << 16 | green << 8 | blue, np.uint32).view(np.float32)
    return np.column_stack((points, rgb)).astype(np.float32)


def colors(points: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(points[:, 3]).view(np.uint32)
    return np.stack([bits >> 16, bits >> 8 & 255, bits & 255], axis=-1)


@pytest.fixture
def process():
    process = CloudFilterProcess()
    yield process
    process.close()


@pytest.fixture
def wall() -> np.ndarray:
    """A wall of 2 m x 1 m, 3 m away, 20001 points."""
    return np.random.default_rng(0).uniform((-1, 0, 3.001), (1, 1, 3.001), (20001, 3))


def test_one_mean_point_per_voxel(process, wall):
    found = process(cloud(wall), 0.1, 0, 0.0)
    assert found.shape == (20 * 10, 4) and found.dtype == np.float32
    voxels = np.unique(np.floor(found[:, :3] / 0.1).astype(int), axis=0)
    assert len(voxels) == len(found)
    np.testing.assert_allclose(found[:, 2], 3.001, atol=1e-4)
    assert (colors(found) == (200, 100, 50)).all()
    # The mean, not one of them: the middle of its voxel, to within a voxel's width / sqrt(12) / sqrt(100), five times.
    np.testing.assert_allclose(found[:, 0] % 0.1, 0.05, atol=0.015)


def test_colors_are_means(process):
    pair = np.concatenate((cloud(np.full((1, 3), 0.51), 0, 100, 40), cloud(np.full((1, 3), 0.52), 200, 0, 40)))
    assert colors(process(pair, 0.1, 0, 0.0)).tolist() == [[100, 50, 40]]


def test_outliers_go_and_without_neighbors_stay(process, wall):
    points = cloud(np.concatenate((wall[:5000], [[0.0, 0.5, 1.0]])))
    assert len(process(points, 0.0, 0, 2.0)) == 5001
    found = process(points, 0.0, 20, 5.0)
    assert 4900 < len(found) <= 5000 and found[:, 2].min() > 3


def test_the_process_answers_as_the_function_does_request_after_request(process, wall):
    for count in (len(wall), 0, 3):
        points = cloud(wall[:count])
        found, expected = process(points, 0.05, 2, 1.0), filter_cloud(points, 0.05, 2, 1.0)
        assert (found.shape == expected.shape) and (len(found) > 0) == (count > 0)
        # In no particular order.
        np.testing.assert_allclose(np.sort(found, axis=0), np.sort(expected, axis=0), atol=1e-4)


def test_a_process_that_ends_is_an_error(process, wall):
    process(cloud(wall[:10]), 0.0, 0, 0.0)
    process._process.kill()
    with pytest.raises(RuntimeError, match="ended with status -9"):
        process(cloud(wall), 0.0, 0, 0.0)


def test_without_open3d(process, wall, monkeypatch, tmp_path):
    (tmp_path / "open3d.py").write_text("raise ImportError('no libGL')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(Open3dMissingError, match="open3d does not load"):
        process(cloud(wall), 0.1, 0, 0.0)


def test_the_process_ends_quietly_when_the_node_dies_amid_a_request():
    command = [sys.executable, "-m", "lotus2_ros.ros.cloud_filter_process"]
    request = REQUEST.pack(1000, 0.05, 0, 2.0) + bytes(16)  # 1000 points announced, one sent
    done = subprocess.run(command, input=request, capture_output=True, timeout=allowed(60))
    assert done.returncode == 0 and done.stdout == b"" and b"Traceback" not in done.stderr
