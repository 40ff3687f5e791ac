"""`lotus2 evaluate`: a model against held-out scenes, recorded frames and the data sets of the paper's tables."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from lotus2_ros import scenes
from lotus2_ros.config import Config
from lotus2_ros.data.benchmarks import BENCHMARKS
from lotus2_ros.data.sample import Sample
from lotus2_ros.evaluation.parts import EvaluationSet, benchmark_part, frame_parts, scene_parts, sequence_parts
from lotus2_ros.evaluation.report import write_report
from lotus2_ros.evaluation.runs import measure_all, read_records, start
from lotus2_ros.evaluation.sheets import save_sheet
from lotus2_ros.evaluation.summary import summarize
from lotus2_ros.inference.estimator import Estimator, load_estimator
from lotus2_ros.model.load import BUNDLED

SHEET_ROWS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="", help="bundle or released layout (the bundled model)")
    parser.add_argument(
        "--views", type=int, default=60, help="held-out views of each kind of scene, and of its things (%(default)s)"
    )
    parser.add_argument(
        "--sequences", type=int, default=1, help="held-out moving cameras in each kind of place (%(default)s)"
    )
    parser.add_argument(
        "--first-seed", type=int, default=scenes.HELD_OUT_SEEDS, help="number of the first held-out scene (%(default)s)"
    )
    parser.add_argument("--frames", type=Path, nargs="*", default=[], metavar="DIR",
                        help="folders with rgb.png, depth.png and intrinsics.json, or folders of such")  # fmt: skip
    parser.add_argument("--benchmarks", nargs="*", default=[], metavar="NAME=PATH",
                        help=f"data sets and where they are: {', '.join(BENCHMARKS)}")  # fmt: skip
    parser.add_argument("--steps", type=int, help="sharpener steps (the model's own); 0 leaves it out")
    parser.add_argument("--output", type=Path, default=Path("out/evaluate"), help="for the report (%(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on with the evaluation in --output")


def run(args: argparse.Namespace) -> int:
    # Under `accelerate launch` each process has a GPU of its own, and measures its share of the samples.
    state = PartialState(cpu=not torch.cuda.is_available())
    # Not compiled: that takes a while for each size of image, and recorded frames are of many.
    estimator = load_estimator(Config().updated({"model.path": args.model, "model.compile": False}))
    parts = _parts(args, estimator)
    settings = _settings(args, estimator)
    with state.main_process_first():
        if state.is_main_process:
            start(args.output, settings, args.resume)
    measure_all(estimator, parts, args.steps, args.output, state.process_index, state.num_processes)
    state.wait_for_everyone()
    if state.is_main_process:
        records = read_records(args.output)
        print(write_report(args.output, settings, summarize(parts, records, args.output), records))
        for group in ("scenes", "things", "frames", "depth", "normals"):
            if samples := _some([part for part in parts if part.group == group]):
                save_sheet(args.output / f"{group}.png", estimator, samples, args.steps)
    return 0


def _parts(args: argparse.Namespace, estimator: Estimator) -> list[EvaluationSet]:
    parts = scene_parts(estimator, args.first_seed, args.views) if args.views else []
    if args.sequences:
        parts += sequence_parts(args.first_seed, args.sequences)
    parts += frame_parts(args.frames)
    for text in args.benchmarks:
        name, _, path = text.partition("=")
        if name not in BENCHMARKS or not path:
            raise ValueError(f"expected a benchmark as NAME=PATH with a name of {', '.join(BENCHMARKS)}; got {text!r}")
        parts.append(benchmark_part(BENCHMARKS[name], Path(path)))
    if not parts:
        raise ValueError("expected something to measure: views, sequences, frames or benchmarks")
    if len({(part.group, part.name) for part in parts}) < len(parts):
        raise ValueError("expected folders and benchmarks of different names, got a name twice")
    return parts


def _settings(args: argparse.Namespace, estimator: Estimator) -> dict[str, Any]:
    """What the records depend on."""
    settings = {name: value for name, value in vars(args).items() if name not in ("output", "resume")}
    path = Path(args.model) if args.model else BUNDLED
    stamp = sorted((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in path.rglob("*"))
    return {
        **settings,
        "model": estimator.model.name,
        "weights": hashlib.sha256(repr(stamp).encode()).hexdigest()[:16],
        "frames": [str(folder) for folder in args.frames],
    }


def _some(parts: list[EvaluationSet]) -> list[Sample]:
    """About SHEET_ROWS samples, in turn from each part."""
    rounds = max(1, SHEET_ROWS // max(1, len(parts)))
    places = [(part, index) for part in parts for index in range(min(rounds, len(part.samples)))]
    return [part.samples[index] for part, index in places[:SHEET_ROWS]]
