"""Hypersim's files: distances to depth, OpenGL's axes to ours, frames without a whole depth left out."""

import math

import numpy as np
import pytest
import torch

from lotus2_ros.data.hypersim import Hypersim

HEIGHT, WIDTH = 6, 8
FOCAL = 886.81 * WIDTH / 1024


def write_frame(write, number, distance, normals):
    folder = "ai_001_002/images/scene_cam_00_"
    write.plain(f"{folder}final_preview/frame.{number:04d}.tonemap.jpg", HEIGHT, WIDTH)
    write.hdf5(f"{folder}geometry_hdf5/frame.{number:04d}.depth_meters.hdf5", distance)
    write.hdf5(f"{folder}geometry_hdf5/frame.{number:04d}.normal_cam.hdf5", normals)


def write_split(write, frames):
    header = "scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name"
    rows = [f"ai_001_002,cam_00,{number},{included},,{split}" for number, included, split in frames]
    write.path("metadata_images_split_scene_v1.csv").write_text("\n".join([header, *rows]) + "\n")


WALL = np.tile(np.float32([0, 0, 1]), (HEIGHT, WIDTH, 1))


def test_distance_becomes_depth_along_z(write):
    write_frame(write, 0, np.full((HEIGHT, WIDTH), 2.0), WALL)
    (sample,) = Hypersim(write.root)
    assert sample.K.tolist() == [[FOCAL, 0, 3.5], [0, FOCAL, 2.5], [0, 0, 1]]
    assert sample.name == "ai_001_002/images/scene_cam_00_final_preview/frame.0000.tonemap"
    expected = 2 / math.sqrt(1 + (3.5 / FOCAL) ** 2 + (2.5 / FOCAL) ** 2)
    assert sample.depth[0, 0] == pytest.approx(expected) and sample.depth[-1, -1] == pytest.approx(expected)


def test_normals_point_toward_the_camera_in_the_optical_frame(write):
    normals = WALL.copy()
    normals[-1] = 0, 1, 0  # a floor: up
    normals[-1, 0] = 0, -1, 0  # one that was modelled from below
    normals[1:-1, -1] = -2, 0, 0  # a wall on the right; its length is not 1
    normals[0, 0] = 0, 0, -1  # the back of the wall
    normals[0, 1] = 0
    normals[2, 2] = 0, 0.6, 0.8  # a ramp that rises from the camera
    write_frame(write, 0, np.full((HEIGHT, WIDTH), 2.0), normals)
    (sample,) = Hypersim(write.root)
    assert sample.normals[2, 3].tolist() == [0, 0, -1] and sample.normals[0, 0].tolist() == [0, 0, -1]
    torch.testing.assert_close(sample.normals[2, 2], torch.tensor([0.0, -0.6, -0.8]), atol=1e-3, rtol=0)
    assert (sample.normals[-1] == torch.tensor([0.0, -1, 0])).all()
    assert (sample.normals[1:-1, -1] == torch.tensor([-1.0, 0, 0])).all()
    assert torch.isnan(sample.normals).any(-1).nonzero().tolist() == [[0, 1]]


def test_training_frames_with_a_whole_depth(write):
    whole, holed = np.full((HEIGHT, WIDTH), 2.0), np.full((HEIGHT, WIDTH), 2.0)
    holed[3, 3] = np.nan
    for number, distance in enumerate((whole, holed, whole, whole, whole)):
        write_frame(write, number, distance, WALL)
    write_split(
        write,
        [(0, "True", "train"), (1, "True", "train"), (2, "False", "train"), (3, "True", "test"), (4, "True", "train")],
    )
    for _ in range(2):
        samples = Hypersim(write.root)
        assert [sample.name[-12:-8] for sample in samples] == ["0000", "0004"]
        # The second time nothing is read to find them.
        write.path("ai_001_002/images/scene_cam_00_geometry_hdf5/frame.0001.depth_meters.hdf5").unlink(missing_ok=True)
    assert [path.name for path in write.root.glob("complete_train*")] == ["complete_train.txt"]


def test_refused(write):
    write_split(write, [(0, "True", "val")])
    with pytest.raises(ValueError, match=r"scene_v1\.csv: expected frames of the split train in the public release"):
        Hypersim(write.root)
    write_frame(write, 0, np.ones((HEIGHT, WIDTH + 1)), WALL)
    write_split(write, [(0, "True", "train")])
    with pytest.raises(
        ValueError, match=r"frame\.0000\.tonemap\.jpg: expected truth of the image's size, 8 x 6, got 9 x 6"
    ):
        Hypersim(write.root)[0]
    write_split(write, [(7, "True", "train")])
    write.path("complete_train.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"frame\.0007\.depth_meters\.hdf5"):
        Hypersim(write.root)
    assert not list(write.root.glob("complete_train*")) and not list(write.root.glob("tmp*"))
