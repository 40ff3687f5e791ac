"""What eight and four bits cost the bundled model, in the measures that users look at."""

from __future__ import annotations

import pytest
import torch

from lotus2_ros import scenes
from lotus2_ros.config import Config
from lotus2_ros.estimator import Estimator
from lotus2_ros.evaluation.command import Scores, measure
from lotus2_ros.model.bundle import load_bundle
from lotus2_ros.model.checkpoint import BUNDLED
from lotus2_ros.model.fold import fold
from lotus2_ros.model.source import Source

CPU = torch.device("cpu")


def scores(precision: str) -> Scores:
    """On one unseen view of every kind; off a GPU float8 is rounded as there and multiplied in float32."""
    model = fold(
        Source.of(load_bundle(BUNDLED, device=CPU, dtype=torch.float32)), precision, device=CPU, dtype=torch.float32
    )
    estimator, rows = Estimator(model, Config()), Scores()
    for kind in scenes.KINDS:
        view = scenes.view(200, 160, 120, kind)
        measure(estimator, view.image, view.depth, view.normals, 2, rows)
    return rows


@pytest.fixture(scope="module")
def exact() -> Scores:
    return scores("float32")


@pytest.mark.parametrize(
    ("precision", "absrel", "degrees"), [("float8", 0.003, 0.3), ("int8", 0.003, 0.3), ("nf4", 0.01, 1)]
)
def test_depth_and_normals_stay_what_they_are(exact: Scores, precision: str, absrel: float, degrees: float) -> None:
    rounded = scores(precision)
    for ours, theirs in ((rounded.core, exact.core), (rounded.sharp, exact.sharp)):
        difference = torch.tensor(ours) - torch.tensor(theirs)
        assert difference.abs().max() > 0  # the precision is really another
        assert difference.mean().abs() <= absrel
    assert abs(torch.tensor(rounded.angle).mean() - torch.tensor(exact.angle).mean()) <= degrees
