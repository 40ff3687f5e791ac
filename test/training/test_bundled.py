"""The model that ships with the package is trained, and as good as its card says."""

from pathlib import Path

import pytest
import torch

import lotus2_ros
from lotus2_ros import scenes
from lotus2_ros.config import Config
from lotus2_ros.estimator import load_estimator
from lotus2_ros.evaluation.command import Scores, measure, pool

BUNDLED = Path(lotus2_ros.__file__).parent / "bundled"


def test_it_is_small_and_holds_nothing_but_weights_manifest_and_card():
    files = {path.name: path.stat().st_size for path in BUNDLED.iterdir()}
    assert files.keys() == {"bundle.json", "model.safetensors", "README.md"}
    assert sum(files.values()) <= 16 * 2**20


@pytest.fixture(scope="module")
def scores() -> Scores:
    """On views of every kind that it was not trained on."""
    estimator = load_estimator(Config())
    rows = []
    for kind in scenes.KINDS:
        rows.append(Scores())
        for seed in range(100, 103):
            view = scenes.view(seed, 160, 120, kind)
            measure(estimator, view.image, view.depth, view.normals, 4, rows[-1])
    return pool(rows)


def mean(values: list[float]) -> float:
    return float(torch.tensor(values).mean())


def test_depth_is_far_better_than_the_image_row(scores):
    assert mean(scores.core) <= 0.65 * mean(scores.row)


def test_normals_are_far_better_than_chance(scores):
    assert mean(scores.angle) < 32


def test_the_sharpener_does_little_harm(scores):
    assert mean(scores.sharp) < mean(scores.core) + 0.02
    assert mean(scores.sharp_angle) < mean(scores.angle) + 1
