"""The model that ships with the package is trained, and as good as its card says."""

from pathlib import Path

import pytest

import lotus2_ros
from lotus2_ros import scenes
from lotus2_ros.config import Config
from lotus2_ros.data.sample import Sample
from lotus2_ros.evaluation.measure import measure
from lotus2_ros.evaluation.summary import Means, average
from lotus2_ros.inference.loading import load_estimator

BUNDLED = Path(lotus2_ros.__file__).parent / "bundled"


def test_it_is_small_and_holds_nothing_but_weights_manifest_card_and_license():
    files = {path.name: path.stat().st_size for path in BUNDLED.iterdir()}
    assert files.keys() == {"bundle.json", "model.safetensors", "README.md", "LICENSE.efficientnet-lite0"}
    assert sum(files.values()) <= 32 * 2**20


@pytest.fixture(scope="module")
def scores() -> Means:
    """On views of every kind that it was not trained on."""
    estimator = load_estimator(Config())
    views = [scenes.view(seed, 208, 156, kind) for kind in scenes.KINDS for seed in range(100, 103)]
    return average([measure(estimator, Sample("", v.image, v.depth, v.normals), 1) for v in views])


def test_depth_is_far_better_than_the_image_row(scores):
    assert scores["core/depth/abs_rel"] <= 0.6 * scores["row/depth/abs_rel"]


def test_normals_are_far_better_than_chance(scores):
    assert scores["core/normals"] < 25


def test_its_uncertainty_tells_where_depth_errs(scores):
    assert scores["core/uncertainty/ause"] < 0.6 * scores["core/uncertainty/random"]


def test_the_sharpener_does_little_harm(scores):
    assert scores["sharp/depth/abs_rel"] < scores["core/depth/abs_rel"] + 0.02
    assert scores["sharp/normals"] < scores["core/normals"] + 1
