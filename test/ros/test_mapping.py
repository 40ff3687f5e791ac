"""A mesh from a recording: it lies where the surfaces are, in the fixed frame of the poses."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")

from lotus2_ros import cli
from lotus2_ros.bags import open_recording
from lotus2_ros.config import CloudConfig, Config
from lotus2_ros.config.errors import RunError
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.lens import Lens
from lotus2_ros.inference.annotations import Annotations
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.model.engine.device import Stopwatch
from lotus2_ros.ros.mapping import Volume, map_recording
from lotus2_ros.ros.messages import MessageError
from lotus2_ros.ros.recorded_camera import RecordedCamera
from lotus2_ros.scale.scale import Scale
from test.ros.test_recorded_motion import FRAMES, MOUNT, Oracle, record
from test.scale.test_motion import EDGE, FAR, NEAR

VOXEL = 0.05


def mapped(source, **parameters):
    config = Config().updated({"cloud.max_depth": 6.0, **parameters})
    recording = open_recording([source], with_transforms=bool(config.scale.fixed_frame), say=pytest.fail)
    return map_recording(Oracle(), recording, config, VOXEL, warn=lambda line: None)


def test_the_mesh_is_where_the_walls_are(tmp_path):
    found = mapped(record(tmp_path / "in", "/tf"), **{"scale.fixed_frame": "odom"})
    assert set(found.sources) == {"odometry"} and found.sources.total() + len(found.refused) == FRAMES
    # From `odom`, whose axes are the robot's at the start, to the first camera's.
    x, y, z = ((np.asarray(found.mesh.vertices) - MOUNT[:3, 3]) @ MOUNT[:3, :3]).T
    near, far = np.abs(z - NEAR) < VOXEL, np.abs(z - FAR) < 2 * VOXEL
    assert (near | far).mean() > 0.98 and near.sum() > 500 and far.sum() > 500
    assert x[near].max() == pytest.approx(EDGE, abs=2 * VOXEL) and x[far].max() > EDGE + 0.5
    assert np.ptp(y[near]) > 1.5


def test_without_meters_or_poses_it_says_why(tmp_path):
    source = record(tmp_path / "in", "/tf")
    with pytest.raises(RunError, match="no frame can be mapped: depth is not in meters: "):
        mapped(source)  # without scale.fixed_frame nobody asks /tf
    frame = next(open_recording([source]).frames())
    with pytest.raises(MessageError, match=r"expected the camera's pose .* scale\.fixed_frame"):
        RecordedCamera(Config(), pytest.fail).pose(frame)


def test_frames_of_nothing_near_are_left_out(tmp_path):
    source = record(tmp_path / "in", "/tf")
    with pytest.raises(RunError, match=r"no frame can be mapped: nothing is within cloud.max_depth 0\.1 m"):
        mapped(source, **{"scale.fixed_frame": "odom", "cloud.max_depth": 0.1})


def test_a_distorted_image_gives_a_straight_wall():
    K = torch.tensor([[120.0, 0, 70], [0, 118, 64], [0, 0, 1]])
    camera = Camera(160, 120, K, Lens("plumb_bob", (-0.2, 0.05, 0.0, 0.0)))
    wall = Annotations(disparity=0.5 + 0.1 * camera.rays[..., 0])  # 1 / z is linear in the ray: z + x / 5 = 2
    image, scale = torch.full((120, 160, 3), 90, dtype=torch.uint8), Scale(1.0, 0.0, "reference_depth", metric=True)
    geometry = Geometry(image, camera, "core", scale, wall, Stopwatch(torch.device("cpu")))
    volume = Volume(0.04)
    for _ in range(2):
        volume.add(geometry, torch.eye(4).double(), CloudConfig())
    x, _, z = np.asarray(volume.mesh().vertices).T
    assert len(x) > 500 and np.abs(z + 0.2 * x - 2).max() < 0.04 and np.ptp(x) > 2


def test_the_command_writes_into_a_folder_of_its_own(tmp_path, capsys, monkeypatch):
    source, out = record(tmp_path / "in", "/odometry"), tmp_path / "out"
    monkeypatch.setattr("lotus2_ros.cli.map.workers_of", lambda *args: nullcontext(Oracle()))
    command = ["map", str(source), str(out), "--max-depth", "6"]
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    assert cli.main(command) == 2 and "not written by `lotus2 map`" in capsys.readouterr().err
    (out / "mine.txt").unlink()
    assert cli.main(command) == 0
    mesh = (out / "mesh.ply").read_bytes()
    assert mesh.startswith(b"ply") and "frames (" in capsys.readouterr().out
    assert cli.main(command) == 2 and "--overwrite replaces it" in capsys.readouterr().err
