"""Half a minute of training, from rendering to a model, learns something."""

from pathlib import Path

import pytest
import torch

from lotus2_ros import scenes
from lotus2_ros.cli import main
from lotus2_ros.config import Config
from lotus2_ros.evaluation.metrics import affine_invariant_depth_error
from lotus2_ros.inference.loading import load_estimator
from lotus2_ros.training.progress import read_progress

SMOKE = Path(__file__).parents[2] / "config" / "train" / "smoke.yaml"

HALF = [
    "data.shards=1",
    "stages.vae.steps=160",
    "stages.core.steps=160",
    "stages.sharpener.steps=60",
    "report_every=10",
]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_losses_fall_and_the_model_beats_a_constant(tmp_path):
    folders = ["--output", str(tmp_path / "model"), "--work", str(tmp_path)]
    assert main(["train", str(SMOKE), *folders, "--workers", "1", "--set", *HALF]) == 0
    for stage, part in (("vae", 0.5), ("core", 0.6), ("sharpener", 0.95)):
        losses = [line["loss"] for line in read_progress(tmp_path / f"{stage}.jsonl")]
        assert sum(losses[-3:]) / 3 < part * losses[0], (stage, losses)
    estimator = load_estimator(Config().updated({"model.path": str(tmp_path / "model")}))
    errors, constants = [], []
    for seed in range(12):
        view = scenes.view(seed, 64, 48)
        predicted = estimator.predict(view.image).disparity
        errors.append(affine_invariant_depth_error(predicted, view.depth).abs_rel)
        constants.append(affine_invariant_depth_error(torch.full_like(predicted, 0.5), view.depth).abs_rel)
    assert sum(errors) < 0.95 * sum(constants)
