import argparse
import json

import pytest
import torch

from lotus2_ros import scenes
from lotus2_ros.cli import evaluate
from lotus2_ros.data import benchmarks
from lotus2_ros.data.benchmarks import Benchmark
from lotus2_ros.data.sample import Sample
from lotus2_ros.evaluation import sets
from lotus2_ros.evaluation.sets import SCENE_SIZE, scene_sets

pytestmark = pytest.mark.slow
KINDS, PLACES = ("room", "street"), ("corridor",)  # to be looked at; each costs seconds


def arguments(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    return parser.parse_args(argv)


def samples(path):
    """A benchmark of three images; the path says of what seed."""
    generator = torch.Generator().manual_seed(int(path.name))
    images = torch.randint(0, 256, (3, 24, 32, 3), generator=generator, dtype=torch.uint8)
    normals = torch.nn.functional.normalize(torch.randn(3, 24, 32, 3, generator=generator), dim=-1)
    depths = 1 + torch.rand(3, 24, 32, generator=generator)
    return [Sample(str(i), *of_image) for i, of_image in enumerate(zip(images, depths, normals, strict=True))]


@pytest.fixture(scope="module")
def evaluated(random_bundle, tmp_path_factory, shared):
    """A folder that an untrained model was evaluated into."""
    folder = tmp_path_factory.mktemp("evaluated")
    given = {"nyuv2": Benchmark("nyuv2", "depth", samples, 654, (1e-3, 10.0), resolution=48),
             "sintel-normals": Benchmark("sintel-normals", "normals", samples, 3)}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, benchmark in given.items():
            patch.setitem(benchmarks.BENCHMARKS, name, benchmark)
        patch.setattr(scenes, "KINDS", KINDS)
        patch.setattr(sets, "PLACES", PLACES)
        patch.setattr(sets, "SCENE_SIZE", (80, 60))
        patch.setattr(sets, "SEQUENCE_FRAMES", 2)
        frames = str(shared / "data/indoor_tum_rgbd_open3d")
        args = arguments("--model", str(random_bundle), "--views", "1", "--frames", frames, "--steps", "1",
                         "--benchmarks", "nyuv2=1", "sintel-normals=2", "--output", str(folder / "out"))  # fmt: skip
        assert evaluate.run(args) == 0
        assert evaluate.run(argparse.Namespace(**{**vars(args), "resume": True})) == 0
    return folder / "out"


def rows(report: str, name: str) -> list[list[str]]:
    """The cells of the table rows that begin so."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in report.splitlines() if "|" in line]
    return [cells for cells in lines if cells[0] == name]


def test_the_report_has_a_row_for_everything(evaluated):
    report = (evaluated / "report.md").read_text()
    for kind in KINDS:
        overview, close_up, detail, *_ = rows(report, kind)
        assert len(overview) == 10 and len(close_up) == 10 and len(detail) == 10
        assert overview[5] != close_up[5]  # other views
    assert len(rows(report, "**held-out scenes**")) == 3  # of sequences too
    assert len(rows(report, "**held-out views of things**")) == 1
    # What no model at all scores on this frame is known: .116.
    assert rows(report, "indoor_tum_rgbd_open3d")[0][5] == "0.116"
    assert [row[1:3] for row in rows(report, "nyuv2")] == [["core predictor", "3 of 654"], ["sharpened", "3 of 654"]]
    ranked = rows(report, "**this model, sharpened**")
    assert [len(row) for row in ranked] == [13, 11] and ranked[0][3] == "-" and float(ranked[1][7]) > 20


def test_the_json_says_the_same_and_holds_the_figures(evaluated):
    report = json.loads((evaluated / "report.json").read_text())
    overview = rows((evaluated / "report.md").read_text(), "room")[0]
    means = report["summary"]["scenes"]["room"]
    assert overview[2] == f"{means['core/depth/abs_rel']:.3f}" and overview[7] == f"{means['core/normals']:.1f}°"
    assert report["figures"].keys() >= {
        "held-out scenes, AbsRel / row",
        "held-out views of things, AbsRel / row",
        "held-out scenes, boundary F1",
    }
    assert report["settings"]["model"] == "random" and report["summary"]["normals"]["sintel-normals"]["samples"] == 3


def test_pictures_and_records_are_there_and_resuming_measures_nothing_again(evaluated):
    pictures = ["errors.png", "spectrum.png", "scenes.png", "things.png", "frames.png", "depth.png", "normals.png"]
    assert all((evaluated / name).stat().st_size > 1000 for name in pictures)
    lines = (evaluated / "records-0.jsonl").read_text().splitlines()
    assert len(lines) == 3 * len(KINDS) + len(PLACES) + 1 + 3 + 3


def test_detail_is_looked_at_in_the_same_scenes_at_the_models_resolution(oracle):
    held_out = scene_sets(oracle, 200, 2)
    large, small = (next(part.samples for part in held_out if part.group == group) for group in ("scenes", "detail"))
    assert len(large) == 2 and large[1].name == small[1].name
    assert large[1].image.shape[1::-1] == SCENE_SIZE and small[1].image.shape[:2] == (36, 48)
    coarse = torch.nn.functional.interpolate(1 / large[1].depth[None, None], (36, 48), mode="area")[0, 0]
    assert torch.corrcoef(torch.stack((coarse.flatten(), 1 / small[1].depth.flatten())))[0, 1] > 0.95


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--first-seed", str(scenes.TRAINING_SEEDS)), "expected held-out scenes"),
        (("--views", "0", "--sequences", "0"), "expected something to measure"),
        (("--benchmarks", "cityscapes=1"), "expected a benchmark as NAME=PATH"),
        (("--views", "-1"), "expected 0 or a positive number of views, got -1"),
        (("--steps", "-3"), "expected 0 or a positive number of steps, got -3"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(argv, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        evaluate.run(arguments(*argv, "--output", str(tmp_path)))
