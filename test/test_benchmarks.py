"""The benches run, on a tiny model and without a GPU; what they say of time is not looked at."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks import ablation, consistency, families
from benchmarks.ablation_figures import measure
from benchmarks.ablation_report import table
from benchmarks.ceilings import Ceilings
from benchmarks.models import TASKS, TINY, make_plain
from benchmarks.report import Aim
from benchmarks.rows import floor_ms
from benchmarks.timing import interleaved_ms, markdown, percentile
from lotus2_ros import scenes
from lotus2_ros.data.sample import Sample
from lotus2_ros.evaluation.metrics import affine_invariant_depth_error, image_row
from lotus2_ros.evaluation.tables import published_table

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.slow
def test_gpu_bench_measures_everything_it_names(tmp_path):
    sizes = ("32x32", "48x32")
    options = ["--tiny", "--sizes", ",".join(sizes), "--seconds", "0.01", "--frames", "20", "--output", str(tmp_path)]
    printed = run("benchmarks.gpu", *options)
    found = json.loads((tmp_path / "gpu.json").read_text())
    measured = {(row["variant"], f"{row['width']}x{row['height']}") for row in found["rows"]}
    variants = ("plain", "bfloat16", "float8", "int8", "nf4", "lotus-d", "lotus-g")
    assert measured == {(variant, size) for variant in variants for size in sizes}
    for row in found["rows"]:
        assert all(row[name] > 0 for name in ("encode", "core", "decode", "frame", "core_floor"))
        assert row["step"] is None if row["variant"].startswith("lotus-") else row["step"] > 0
        assert row["variant"] == "plain" or row["frame_both"] > 0
    assert {(loop["core loop, ms"], loop["sharpener"]) for loop in found["loops"]} == {
        (f"{variant} {sizes[0]}", sharpener) for variant in ("bfloat16", "float8") for sharpener in ("idle", "busy")
    }
    assert all(loop["steps/s"] > 0 for loop in found["loops"] if loop["sharpener"] == "busy")
    assert not [note for note in found["notes"] if "failed" in note or "skipped" in note]
    assert (tmp_path / "gpu.md").read_text() in printed


def test_gpu_bench_names_what_it_had_no_time_for(tmp_path):
    options = ["--tiny", "--sizes", "32x32,48x32", "--seconds", "0.01", "--precisions", "bfloat16", "--deadline", "0"]
    printed = run("benchmarks.gpu", *options)
    assert "bfloat16 48x32: skipped for the deadline" in printed
    assert "bfloat16: core loop skipped for the deadline" in printed


def test_cpu_bench_compares_the_same_results():
    printed = run("benchmarks.cpu", "--threads", "1", "--rounds", "1")
    assert "| 1 thread | plain, ms | ours, ms | ratio |" in printed
    assert "| 640x480 image to both |" in printed


@pytest.mark.slow
def test_alignment_bench_measures_everything_it_names(tmp_path):
    recorded = tmp_path / "recorded"
    recorded.mkdir()
    seen = scenes.view(0, 320, 240, "room")
    cv2.imwrite(str(recorded / "rgb.png"), seen.image.numpy()[..., ::-1])
    np.save(recorded / "depth.npy", seen.depth.numpy())
    names = dict(zip(("fx", "fy", "cx", "cy"), seen.camera.K[[0, 1, 0, 1], [0, 1, 2, 2]].tolist(), strict=True))
    (recorded / "intrinsics.json").write_text(json.dumps(names))
    printed = run("benchmarks.alignment", "--quick", "--frames", str(tmp_path))
    table = printed[printed.index("| what |") :].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table if line]
    assert all(math.isfinite(float(measured.split()[0])) for _, _, measured, *_ in rows)
    assert {what.split(":")[0] for what, *_ in rows} == {
        "fit_scale_shift", "shift_from_normals", "scale_from_ground",
        "AbsRel of a fit to a few points, over that of least squares with all",  # only of recorded frames
        "scale of a standing camera", "one pixel of a standing camera",
        "drift of a moving camera", "AbsRel of a moving camera",
        "sky missed", "sky indoors", "flying pixels left", "time, 640x480",
    }  # fmt: skip
    assert any(what.startswith("shift_from_normals") and case.startswith("recorded") for what, case, *_ in rows)


@pytest.mark.slow
def test_ablation_trains_and_measures_every_row_of_the_papers_table(tmp_path):
    folders = {name: str(tmp_path / name) for name in ("scenes", "work", "output")}
    options = [text for name, path in folders.items() for text in (f"--{name}", path)]
    printed = run("benchmarks.ablation", "--quick", "--steps", "2", "--seeds", "1", *options)
    rows = json.loads((tmp_path / "output/ablation.json").read_text())["rows"]
    assert rows.keys() == {*published_table("ablation").methods, ablation.CEILING}
    assert all(math.isfinite(value) for (figures,) in rows.values() for value in figures.values())
    errors = [figures["scenes, AbsRel"] for (figures,) in rows.values()]
    assert len(set(errors)) == len(errors)
    assert (tmp_path / "output/ablation.md").read_text() in printed
    assert cv2.imread(str(tmp_path / "output/ablation.png")) is not None


def test_ablation_gives_all_rows_the_same_budget():
    configs = [ablation.configuration(training, 7, 400, quick=False) for training in ablation.TRAININGS]
    budgets = {config.stages[0].model_dump_json(exclude={"objective"}) for config in configs}
    assert len(budgets) == 1 and len({(config.seed, config.data) for config in configs}) == 1
    networks = [config.network.model_dump() for config in configs]
    assert [network.pop("patch") for network in networks] == [2, 2, 2, 2, 2, 1]
    assert all(network == networks[0] for network in networks)
    assert [stage.steps for stage in configs[4].stages] == [400, 200]


def test_what_is_seen_moved_lies_where_it_was(generator):
    """A model that says what it sees gives the same answer wherever it is shown the image."""
    image = torch.randint(0, 256, (48, 80, 3), dtype=torch.uint8, generator=generator)
    says = SimpleNamespace(
        process_resolution=80,
        model=SimpleNamespace(multiple=8),
        predict=lambda seen, tasks: SimpleNamespace(disparity=seen[..., 0].float()),
    )
    truth = image[..., 0].float()
    moved = consistency.seen_moved(says, image)
    assert torch.equal(moved[:-4, :-4], truth[:-4, :-4]) and not torch.equal(moved, truth)


@pytest.mark.slow
def test_families_are_trained_and_measured_beside_each_other(tmp_path):
    folders = {name: str(tmp_path / name) for name in ("scenes", "work", "output")}
    options = [text for name, path in folders.items() for text in (f"--{name}", path)]
    run("benchmarks.families", "--quick", "--views", "1", "--only", "lotus-2", "lotus-g", *options)
    rows = json.loads((tmp_path / "output/families.json").read_text())
    assert rows.keys() == {"lotus-2", "lotus-g"}
    assert rows["lotus-2"]["AUSE"] is None and math.isfinite(rows["lotus-g"]["AUSE"])
    for row in rows.values():
        assert all(row[column] > 0 for column in ("AbsRel / row", "normals, degrees", "ms", "million parameters"))


def test_families_have_the_same_budget_and_vae():
    configs = [families.configuration(*run, families.STAGES, 600, quick=False) for run in families.FAMILIES.values()]
    for config in configs:
        assert tuple(stage.name for stage in config.stages) == (families.VAE, *families.STAGES)
        assert config.stages[-1].steps == 600
        assert (config.data, config.seed, config.tasks) == (configs[0].data, configs[0].seed, configs[0].tasks)
        assert config.stages[0] == configs[0].stages[0]
        budgets = [
            [stage.model_dump(exclude={"objective", "single_blocks"}) for stage in each.stages]
            for each in (config, configs[0])
        ]
        assert budgets[0] == budgets[1]
        vae = ("vae_widths", "vae_groups", "latent_channels", "process_resolution")
        assert all(getattr(config.network, name) == getattr(configs[0].network, name) for name in vae)
    for core in (1, 2, 3):
        objectives = [config.stages[core].objective.model_dump() for config in configs]
        kinds = [
            (config.network.source, each.get("reconstruction"))
            for config, each in zip(configs, objectives, strict=True)
        ]
        assert kinds == [("scratch", None), *[("unet", True), ("unet", False)] * 2]
        own = {"kind", "reconstruction", "prediction", "continuity"}
        weights = [{key: value for key, value in each.items() if key not in own} for each in objectives]
        assert all(each == weights[0] for each in weights)
    assert [config.network.generative for config in configs[1:]] == [False, False, True, True]


def test_families_are_trained_by_the_stages_that_are_chosen():
    run = families.FAMILIES["lotus-d"]
    config = families.configuration(*run, ("core_small", "core_decoded"), 7, quick=False)
    assert [(stage.name, stage.steps) for stage in config.stages[1:]] == [("core_small", 2600), ("core_decoded", 7)]
    assert families.configuration(*run, ("core",), quick=False).stages[-1].steps == 2400


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


def test_beside_bench_has_a_row_for_each_way_of_waiting():
    printed = run("benchmarks.beside", "--busy", "0", "--seconds", "0.05")
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("| ")]
    assert rows[0][1].strip() == "0 busy, median ms" and len(rows) == 6
    assert all(float(cell) > 0 for row in rows[1:] for cell in row[1:])


def test_gpu_bench_needs_neither_ros_nor_a_renderer():
    code = "import benchmarks.gpu, sys; print({'rclpy', 'open3d'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.stdout == "set()\n"


def test_plain_model_is_the_network_of_the_adapted_one():
    """diffusers' own forward, called as for the public model, gives what our pass over its blocks gives."""
    from lotus2_ros.model.adapted import AdaptedLotus2

    model = make_plain(TINY, TASKS[0], CPU, torch.float32)
    model.conditioning = model.conditioner.rounding = "float32"
    latent = torch.randn(1, 16, 6, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for stage, timestep in (("core_predictor", 1.0), ("detail_sharpener", 5.0)):
            plain = model.transform(latent, stage, TASKS[0], timestep)
            ours = AdaptedLotus2.transform(model, latent, stage, TASKS[0], timestep)
            assert (plain - ours).norm() <= 1e-5 * ours.norm()


def test_floor_is_the_slower_of_products_and_weights():
    ceilings = Ceilings({"bfloat16": 800e12, "float8": 1600e12}, 4e12)
    assert floor_ms(80_000_000_000_000, 0, ceilings, "bfloat16") == pytest.approx(100)
    assert floor_ms(80_000_000_000_000, 0, ceilings, "float8") == pytest.approx(50)
    assert floor_ms(80_000_000_000_000, 0, ceilings, "nf4") == pytest.approx(100)
    assert floor_ms(1, 4_000_000_000, ceilings, "bfloat16") == pytest.approx(1)


def test_aims():
    assert Aim("ms", 50.0, 49.0).met
    assert Aim("ms", 50.0, 51.0).met is False
    assert Aim("times", 2.0, 2.5, least=True).met
    assert Aim("times", 2.0, None, least=True).met is None


def test_percentiles():
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50.0, 95.0, 99.0, 100.0]
    assert percentile([3.0], 0.5) == 3.0


def test_interleaved_runs_alternate():
    calls: list[str] = []
    times = interleaved_ms({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert set(times) == {"a", "b"}
    assert "".join(calls) == "ab" * (len(calls) // 2)


def test_tables():
    assert markdown(("size", "ms", "GB"), [("a", 1.234, None), ("b", 12.34, 5)]) == (
        "| size | ms | GB |\n|---|---:|---:|\n| a | 1.23 |  |\n| b | 12.3 | 5 |"
    )
