from __future__ import annotations

import json
import math

import cv2
import pytest
import torch.nn.functional as F

from benchmarks import ablation
from benchmarks.ablation_figures import measure
from benchmarks.ablation_report import table
from lotus2_ros import scenes
from lotus2_ros.data.sample import Sample
from lotus2_ros.evaluation.metrics import affine_invariant_depth_error, image_row
from lotus2_ros.evaluation.tables import published_table


@pytest.fixture
def run(bench, tmp_path):
    """(options...) -> what is printed and the rows of a quick run of two steps."""

    def call(*options):
        folders = {name: str(tmp_path / name) for name in ("scenes", "work", "output")}
        places = [text for name, path in folders.items() for text in (f"--{name}", path)]
        printed = bench("benchmarks.ablation", "--quick", "--steps", "2", "--seeds", "1", *places, *options)
        return printed, json.loads((tmp_path / "output/ablation.json").read_text())["rows"]

    return call


@pytest.mark.slow
def test_ablation_trains_and_measures_every_row_of_the_papers_table(run, tmp_path):
    printed, rows = run()
    assert rows.keys() == {*published_table("ablation").methods, ablation.CEILING}
    assert all(math.isfinite(value) for (figures,) in rows.values() for value in figures.values())
    errors = [figures["scenes, AbsRel"] for (figures,) in rows.values()]
    assert len(set(errors)) == len(errors)
    assert (tmp_path / "output/ablation.md").read_text() in printed
    assert cv2.imread(str(tmp_path / "output/ablation.png")) is not None


@pytest.mark.slow
def test_ablation_measures_the_spread_of_diffusions_and_takes_the_prior_away(run):
    _, rows = run("--analysis", "diffusions", "--only", "noise-10", "clean-1", "--without-prior")
    assert rows.keys() == {"noise, T' = 10", "clean, T' = 1", ablation.CEILING}
    first, last = ("spread over noise, first step", "spread over noise, last step")
    (many,), (one,) = rows["noise, T' = 10"], rows["clean, T' = 1"]
    assert many[first] > 0 and many[last] > 0 and many[first] != many[last]
    assert one[first] == one[last] > 0  # its only step


@pytest.mark.parametrize("analysis", ablation.ANALYSES)
def test_ablation_gives_all_rows_of_an_analysis_the_same_budget(analysis):
    configs = [configuration(training) for training in ablation.ANALYSES[analysis]]
    budgets = {config.stages[0].model_dump_json(exclude={"objective"}) for config in configs}
    assert len(budgets) == 1 and len({(config.seed, config.data) for config in configs}) == 1
    networks = [config.network.model_dump(exclude={"patch"}) for config in configs]
    assert all(network == networks[0] for network in networks) and networks[0]["prior"]["pretrained"]
    assert len({training.name for training in ablation.ANALYSES[analysis]}) == len(configs)


def test_ablation_of_the_table_has_a_row_without_packing_and_half_the_steps_for_the_sharpener():
    configs = [configuration(training) for training in ablation.ANALYSES["table"]]
    assert [config.network.patch for config in configs] == [2, 2, 2, 2, 2, 1]
    assert [stage.steps for stage in configs[4].stages] == [400, 200]
    assert configuration(ablation.ANALYSES["table"][0], prior=False).network.prior is None


def configuration(training, **changes):
    return ablation.configuration(training, seed=7, steps=400, quick=False, **changes)


def test_ablation_measures_exact_disparity_as_exact():
    seen = scenes.view(3, 128, 96, "room")
    sample = Sample("", seen.image, seen.depth)
    found = measure(lambda _: 0.5 / seen.depth + 0.1, [sample], [sample])
    assert found["scenes, AbsRel"] == pytest.approx(0, abs=1e-5) == found["frames, AbsRel / row"]
    assert found["scenes, edges F1"] == pytest.approx(1)
    assert found["scenes, log10 of high-frequency power / truth"] == pytest.approx(0, abs=1e-3)


def test_ablation_enlarges_a_smaller_answer_for_its_error():
    seen = scenes.view(3, 128, 96, "room")
    sample = Sample("", seen.image, seen.depth)
    of_row = affine_invariant_depth_error(image_row(96, 128), seen.depth).abs_rel
    found = measure(lambda _: image_row(48, 64), [sample], [sample])
    assert found["scenes, AbsRel"] == pytest.approx(of_row, rel=0.02) == found["frames, AbsRel"]
    assert found["scenes, AbsRel / row"] == pytest.approx(1, abs=0.02) == found["frames, AbsRel / row"]
    # Each of its pixels stands for the mean of four of the truth's, which has no power that only single pixels have.
    halves = F.avg_pool2d(1 / seen.depth[None, None].clamp(max=80), 2)[0, 0]
    found = measure(lambda _: halves, [sample], [])
    assert found["scenes, log10 of high-frequency power / truth"] == pytest.approx(0, abs=0.02)


def test_ablation_table_has_spreads_and_the_papers_numbers():
    found = {
        "other": [{"F1": 0.7}],
        "+ Detail Sharpener": [{"F1": 0.1, "AbsRel": 0.1}, {"F1": 0.2, "AbsRel": 0.3}],
        "Stochastic-DA": [{"F1": 0.1, "AbsRel": 0.5}],
    }
    _, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(found).splitlines()]
    assert rows[0][:5] == ["Stochastic-DA", "0.100", "0.500", "1", "8.261"]
    assert rows[1][:5] == ["+ Detail Sharpener", "0.150 ± 0.071", "0.200 ± 0.141", "2", "4.122"]
    assert rows[2][:5] == ["other", "0.700", "-", "1", "-"]
