from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.ceilings import Ceilings
from benchmarks.gpu import Bench
from benchmarks.lotus_models import SMALL, TRUE
from benchmarks.models import FLUX, TINY
from benchmarks.report import Report
from benchmarks.variants import Variants
from lotus2_ros.demo.deadlines import allowed

ROOT = Path(__file__).parents[2]
# Tests of the runtime compile; that alone would take half a minute for all these variants.
EAGER = "import torch._dynamo; torch._dynamo.config.disable = True"


@pytest.mark.slow
def test_gpu_bench_measures_everything_it_names(bench, tmp_path):
    sizes = ("32x32", "48x32")
    options = ["--tiny", "--sizes", ",".join(sizes), "--seconds", "0.01", "--frames", "20", "--output", str(tmp_path)]
    options += ["--deadline", "86400"]  # nothing is skipped on a busy machine
    printed = bench("benchmarks.gpu", *options, before=EAGER)
    found = json.loads((tmp_path / "gpu.json").read_text())
    measured = {(row["variant"], f"{row['width']}x{row['height']}") for row in found["rows"]}
    variants = ("plain", "bfloat16", "float8", "int8", "nf4", "lotus-d", "lotus-g")
    assert measured == {(variant, size) for variant in variants for size in sizes}
    for row in found["rows"]:
        assert all(row[name] > 0 for name in ("encode", "core", "decode", "frame", "node_frame", "align", "core_floor"))
        assert row["align"] < row["node_frame"]
        assert row["step"] is None if row["variant"].startswith("lotus-") else row["step"] > 0
        assert row["variant"] == "plain" or row["frame_both"] > 0
    assert {(loop["core loop, ms"], loop["sharpener"]) for loop in found["loops"]} == {
        (f"{variant} {sizes[0]}", sharpener) for variant in ("bfloat16", "float8") for sharpener in ("idle", "busy")
    }
    assert all(loop["steps/s"] > 0 for loop in found["loops"] if loop["sharpener"] == "busy")
    assert not [note for note in found["notes"] if "failed" in note or "skipped" in note]
    assert (tmp_path / "gpu.md").read_text() in printed


def notes_of(variants, *, deadline=math.inf, memory=math.inf):
    """What a bench of tiny models says of variants of which it measures less than all."""
    report, ceilings = Report("", None), Ceilings({"bfloat16": 1e12}, 1e10)
    models = Variants(torch.device("cpu"), TINY, SMALL)
    Bench(models, [(32, 32), (48, 32)], variants, 0.01, 20, deadline, ceilings, report, memory).run()
    return report.notes


def test_gpu_bench_names_what_it_had_no_time_for():
    notes = notes_of(["bfloat16", "nf4"], deadline=0)
    assert "bfloat16 48x32: skipped for the deadline" in notes
    assert "bfloat16: core loop skipped for the deadline" in notes
    assert "nf4: skipped for the deadline" in notes
    assert [note for note in notes if note.startswith("bfloat16 32x32: took")]  # the first size is measured in any case


def test_gpu_bench_skips_what_a_card_cannot_hold():
    variants = ["plain", "nf4", "lotus-d", "lotus-g"]
    notes = notes_of(variants, memory=1e8)  # less than the workspace of a GPU's libraries
    assert [note.partition(" of ")[0][:-2] for note in notes] == [f"{name}: skipped, needs 1" for name in variants]


def test_what_fits_the_cards_people_have(monkeypatch):
    monkeypatch.setattr("benchmarks.variants.frame_bytes", lambda *_: 3e9)  # as counted at 640x480, which takes seconds
    variants = ["plain", "bfloat16", "float8", "int8", "nf4", "lotus-d"]
    models = Variants(torch.device("cpu"), FLUX, TRUE)
    needed = {variant: models.needed(variant, (640, 480)) for variant in variants}
    assert {variant for variant in variants if needed[variant] <= 12e9} == {"nf4", "lotus-d"}
    assert {variant for variant in variants if needed[variant] <= 24e9} == {"nf4", "lotus-d", "int8", "float8"}


def test_gpu_bench_needs_neither_ros_nor_a_renderer():
    code = "import benchmarks.gpu, sys; print({'rclpy', 'open3d'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=allowed(120)
    )
    assert result.stdout == "set()\n"
