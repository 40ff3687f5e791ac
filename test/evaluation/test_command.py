import argparse
from types import SimpleNamespace

import pytest
import torch

from lotus2_ros import scenes
from lotus2_ros.evaluation import command
from lotus2_ros.model.bundle import save_bundle


def arguments(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(argv)


class Oracle:
    """Knows the answer up to an affine change of disparity; its sharpener takes two steps and spoils the normals."""

    def __init__(self, view: scenes.View) -> None:
        self.view = view
        self.model = SimpleNamespace(has_sharpener=lambda task: True)

    def predict(self, image):
        return SimpleNamespace(disparity=3 / self.view.depth + 0.5, normals=self.view.normals)

    def sharpen(self, coarse, steps):
        yield None
        yield None
        yield SimpleNamespace(disparity=-coarse.disparity, normals=-coarse.normals)


def test_the_truth_scores_perfectly_and_each_stage_is_measured():
    view = scenes.view(2, 48, 36, "room")
    scores = command.Scores()
    command.measure(Oracle(view), view.image, view.depth, view.normals, None, scores)
    assert scores.core[0] == pytest.approx(0, abs=1e-4) and scores.delta1 == [1.0]
    assert scores.angle[0] == pytest.approx(0, abs=0.1) and scores.sharp_angle[0] == pytest.approx(180, abs=0.1)
    assert scores.sharp[0] == pytest.approx(0, abs=1e-4)  # a negative scale is still an affine fit
    assert scores.row[0] > 0.02


def test_a_table_of_held_out_scenes_and_recorded_frames(small, tmp_path, capsys, shared):
    save_bundle(small, tmp_path, metadata={"name": "tiny", "licence": "Apache-2.0"}, dtype=torch.float32)
    frames = str(shared / "data/indoor_tum_rgbd_open3d")
    assert command.run(arguments("--model", str(tmp_path), "--views", "1", "--frames", frames, "--steps", "1")) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    assert names[1:] == [*scenes.KINDS, "indoor_tum_rgbd_open3d", "**held-out scenes**", "**recorded frames**"]
    assert lines[-1].startswith("recorded frames, geometric mean of AbsRel / row: ")
    # What no model at all scores on this frame is known: .116.
    row = next(line for line in lines if "indoor_tum_rgbd_open3d" in line)
    assert row.split("|")[6].strip() == "0.116"


def test_scenes_of_the_training_set_are_refused():
    with pytest.raises(ValueError, match="expected held-out scenes"):
        command.run(arguments("--first-seed", str(scenes.TRAINING_SEEDS)))
