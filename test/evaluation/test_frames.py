import json
import re

import cv2
import numpy as np
import pytest
import torch

from lotus2_ros.evaluation.frames import read_frames

INTRINSICS = {"fx": 8.0, "fy": 9.0, "cx": 4.0, "cy": 3.0}


def write_frame(folder, height=6, width=9, scale=1000.0):
    folder.mkdir(parents=True)
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 2] = 200  # OpenCV's order: red
    depth = np.full((height, width), 2500, np.uint16)
    depth[0, 0] = 0
    cv2.imwrite(str(folder / "rgb.png"), image)
    cv2.imwrite(str(folder / "depth.png"), depth)
    (folder / "intrinsics.json").write_text(json.dumps({**INTRINSICS, "depth_scale": scale}))


def test_frames_of_a_folder_of_folders_come_in_meters_and_rgb(tmp_path):
    write_frame(tmp_path / "b", scale=5000.0)
    write_frame(tmp_path / "a")
    (tmp_path / "notes").mkdir()
    first, second = read_frames(tmp_path)
    assert (first.name, second.name) == ("a", "b")
    assert first.image[3, 4].tolist() == [200, 0, 0]
    assert first.depth[3, 4] == 2.5 and torch.isnan(first.depth[0, 0]) and second.depth[3, 4] == 0.5


def test_depth_in_meters_from_npy(tmp_path):
    write_frame(tmp_path / "a")
    (tmp_path / "a/depth.png").unlink()
    np.save(tmp_path / "a/depth.npy", np.full((6, 9), 1.25, np.float64))
    (frame,) = read_frames(tmp_path / "a")
    assert frame.depth.dtype == torch.float32 and frame.depth[0, 0] == 1.25


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "rgb.png").unlink(), "expected rgb.* or left.*"),
        (lambda f: (f / "intrinsics.json").write_text("{}"), "missing fx"),
        (lambda f: (f / "intrinsics.json").write_text(json.dumps(INTRINSICS)), "depth_scale in intrinsics.json"),
        (lambda f: (f / "depth.png").write_bytes(b"no"), "expected a uint16 PNG"),
        (lambda f: np.save(f / "depth.npy", np.ones((3, 3))) or (f / "depth.png").unlink(), "of the depth's size"),
    ],
)
def test_a_spoilt_frame_is_refused_by_name(tmp_path, spoil, message):
    write_frame(tmp_path / "a")
    spoil(tmp_path / "a")
    with pytest.raises((ValueError, FileNotFoundError), match=f"{tmp_path}.*{re.escape(message)}"):
        list(read_frames(tmp_path))


def test_a_folder_without_frames_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a depth"):
        list(read_frames(tmp_path))


def test_the_recorded_frames_are_readable(shared):
    frames = list(read_frames(shared / "data"))
    assert len(frames) in (1, 8)  # those of test/data, or of the larger set
    assert all(0.2 < float(frame.depth[frame.depth > 0].nanmedian()) < 40 for frame in frames)
