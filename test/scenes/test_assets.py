"""Scenes that are partly made of a user's models and photographs."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lotus2_ros import scenes
from lotus2_ros.scenes import assets
from lotus2_ros.scenes.builder import Builder
from lotus2_ros.scenes.worlds import build

RED, GREEN = (250, 5, 5), (5, 250, 5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two models: a box of 1 m whose sides are red on the left and green on the right, and a flat one."""
    from lotus2_ros.scenes import shapes

    vertices, triangles = shapes.unit("box", np.random.default_rng(0))
    box = (vertices + np.array([0, 0, 0.5]))[triangles]
    flat = np.repeat(box[:1] * (1, 1, 0), 20, axis=0)
    soup = np.concatenate((box, flat)).astype(np.float16)
    uv = (soup[..., :2] + 0.5).astype(np.float16)
    np.savez(
        tmp_path / "meshes.npz", allow_pickle=False, vertices=soup, uv=uv, texture=np.zeros(len(soup), np.int16),
        color=np.full((len(soup), 3), 128, np.uint8), offsets=np.array([0, len(box), len(soup)], np.int32),
    )  # fmt: skip
    (tmp_path / "textures").mkdir()
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :32], picture[:, 32:] = RED, GREEN
    cv2.imwrite(str(tmp_path / "textures" / "000.png"), picture[..., ::-1])
    index = {
        "models": [{"extent_m": [1, 1, 1]}, {"extent_m": [1, 1, 0]}],
        "textures": [{"file": "000.png", "kind": "rich"}],
    }
    (tmp_path / "index.json").write_text(json.dumps(index))
    return tmp_path


def test_flat_models_and_those_of_other_sizes_are_left_out(folder: Path) -> None:
    loaded = assets.load(folder)
    assert loaded.of_size(0.5, 2).tolist() == [0] and loaded.of_size(2, 5).tolist() == []
    assert loaded.rich == [0]


def test_a_texture_lies_as_its_uv_says_and_is_low_passed(folder: Path) -> None:
    loaded, texture = assets.load(folder), torch.zeros(3, dtype=torch.long)
    uv = torch.tensor([[0.25, 0.5], [0.75, 0.1], [1.25, -3.0]])
    near = loaded.sample(texture, uv, torch.full((3,), 1 / 64))
    assert near[0, 0] > 0.9 > 0.1 > near[0, 1] and near[1, 1] > 0.9 > 0.1 > near[1, 0]
    assert torch.allclose(near[2], near[0])
    far = loaded.sample(texture, torch.tensor([[0.48, 0.5]] * 3), torch.full((3,), 0.9))
    assert float((far[0, 0] - far[0, 1]).abs()) < float(near[0, 0] - near[0, 1])


def test_a_model_stands_where_it_was_placed_in_its_colors(folder: Path) -> None:
    loaded = assets.load(folder)
    builder = Builder(np.random.default_rng(0), assets=loaded)
    assert builder.at(5, 0, 1).model(1.0, (0.5, 2), size=0.1)
    part = builder.parts[0]
    assert part.vertices[:, 0].mean() == pytest.approx(5, abs=0.05)
    assert part.vertices[:, 2].min() == pytest.approx(1, abs=1e-6)
    assert 0.08 <= np.ptp(part.vertices[:, 2]) <= 0.125
    assert part.surface.photo == 0 and part.uv is not None
    assert part.surface.tile == pytest.approx(np.ptp(part.vertices[:, 0]), rel=0.5)
    assert not Builder(np.random.default_rng(0)).model(1.0, (0.5, 2))


def test_scenes_have_them_if_they_are_given(folder: Path) -> None:
    loaded = assets.load(folder)
    world = build(7, "room", loaded)
    assert sum(part.uv is not None for part in world.parts) > 3
    assert any(part.surface.photo == 0 and part.uv is None for part in world.parts)
    assert all(part.surface.photo < 0 for part in build(7, "room").parts)
    view = next(scenes.views(7, 64, 48, "room", assets=loaded))
    assert torch.isfinite(view.depth).all() and len(view.image.unique()) > 20


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not a folder of meshes\.npz"):
        assets.load(tmp_path)
