"""The animated picture: its panels, how it turns, and its size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.view import turning


def test_the_image_stays_and_the_cloud_turns(tmp_path):
    # A near red post before a far blue wall: from the left it hides what is right of it.
    image = torch.zeros((60, 80, 3), dtype=torch.uint8)
    image[..., 2] = 200
    image[:, 38:42] = torch.tensor([200, 0, 0], dtype=torch.uint8)
    depth = torch.full((60, 80), 4.0)
    depth[:, 38:42] = 2.0
    path = tmp_path / "turning.gif"
    turning.save_turning(path, image, depth, Camera.from_fov(80, 60, 60), panel=80)
    with Image.open(path) as animation:
        assert animation.size == (160, 60) and animation.n_frames == 2 * turning.VIEWS - 2
        assert animation.info["loop"] == 0
        pictures = []
        for number in range(turning.VIEWS):
            animation.seek(number)
            pictures.append(np.array(animation.convert("RGB")).astype(int))
    assert all((picture[:, :80] == pictures[0][:, :80]).all() for picture in pictures)
    posts = [np.nonzero(picture[30, 80:, 0] > 150)[0] for picture in (pictures[0], pictures[-1])]
    assert abs(posts[0].mean() - posts[1].mean()) > 4  # the near post moves before the wall


def test_a_file_that_is_too_large_is_made_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr(turning, "BYTES", 10_000)
    monkeypatch.setattr(turning, "VIEWS", 3)
    noise = torch.randint(0, 256, (60, 80, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    turning.save_turning(tmp_path / "a.gif", noise, torch.ones(60, 80), Camera.from_fov(80, 60, 60), panel=160)
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.size[0] < 320


def test_without_a_point_there_is_no_picture(tmp_path):
    image = torch.zeros((6, 8, 3), dtype=torch.uint8)
    with pytest.raises(ValueError, match="expected depth with some points"):
        turning.save_turning(tmp_path / "a.gif", image, torch.full((6, 8), torch.nan), Camera.from_fov(8, 6, 60))
