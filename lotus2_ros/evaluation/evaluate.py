"""A whole evaluation: what to measure, the measuring, the report and the contact sheets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from lotus2_ros import scenes
from lotus2_ros.data.benchmarks import BENCHMARKS
from lotus2_ros.data.sample import Sample
from lotus2_ros.evaluation.contact_sheet import save_contact_sheet
from lotus2_ros.evaluation.records import measure_all, prepare_folder, read_records
from lotus2_ros.evaluation.report import write_report
from lotus2_ros.evaluation.sets import EvaluationSet, benchmark_set, frame_sets, scene_sets, sequence_sets
from lotus2_ros.evaluation.summary import summarize
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.loading import load
from lotus2_ros.model.load import model_folder

SHEET_ROWS = 12
SHEETS = ("scenes", "things", "frames", "depth", "normals")


@dataclass(frozen=True)
class Evaluation:
    """A model, and the samples to measure it on."""

    model: str = ""  # bundle, or folder in the released layout; empty: the bundled model
    views: int = 60  # held-out views of each kind of scene
    sequences: int = 1  # held-out moving cameras in each kind of place
    first_seed: int = scenes.HELD_OUT_SEEDS
    frames: Sequence[Path] = ()  # folders of recorded frames, see `read_frames`
    benchmarks: Mapping[str, Path] = field(default_factory=dict)  # data sets by name, and where they are
    steps: int | None = None  # of the sharpener; None: the model's own; 0: none

    def __post_init__(self) -> None:
        counts = {"views": self.views, "sequences": self.sequences, "steps": self.steps or 0}
        if wrong := next((name for name, count in counts.items() if count < 0), None):
            raise ValueError(f"expected 0 or a positive number of {wrong}, got {counts[wrong]}")

    def run(self, output: Path, *, resume: bool = False) -> str:
        """Measure, and write records, report and contact sheets to the folder ``output``; returns the report's tables.

        Under `accelerate launch` each process measures its share of the samples, on a GPU of its own; all but the first
        return an empty string. Raises ValueError on an evaluation that is empty or not the one to resume.
        """
        state = PartialState(cpu=not torch.cuda.is_available())
        # Not compiled: that takes a while for each size of image, and recorded frames have many sizes.
        estimator = load(self.model or None)
        sets, settings = self.sets(estimator), self.settings(estimator)
        with state.main_process_first():
            if state.is_main_process:
                prepare_folder(output, settings, resume)
        measure_all(estimator, sets, self.steps, output, state.process_index, state.num_processes)
        state.wait_for_everyone()
        if not state.is_main_process:
            return ""
        records = read_records(output)
        tables = write_report(output, settings, summarize(sets, records, output), records)
        for group in SHEETS:
            if samples := _some([each for each in sets if each.group == group]):
                save_contact_sheet(output / f"{group}.png", estimator, samples, self.steps)
        return tables

    def sets(self, estimator: Estimator) -> list[EvaluationSet]:
        sets = scene_sets(estimator, self.first_seed, self.views) if self.views else []
        if self.sequences:
            sets += sequence_sets(self.first_seed, self.sequences)
        sets += frame_sets(self.frames)
        sets += [benchmark_set(BENCHMARKS[name], path) for name, path in self.benchmarks.items()]
        if not sets:
            raise ValueError("expected something to measure: views, sequences, frames or benchmarks")
        if len({(each.group, each.name) for each in sets}) < len(sets):
            raise ValueError("expected folders and benchmarks of different names, got a name twice")
        return sets

    def settings(self, estimator: Estimator) -> dict[str, Any]:
        """Everything that the records depend on, as JSON takes it."""
        files = model_folder(self.model).rglob("*")
        stamp = sorted((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
        return {
            **asdict(self),
            "model": estimator.model.name,
            "weights": hashlib.sha256(repr(stamp).encode()).hexdigest()[:16],
            "frames": [str(folder) for folder in self.frames],
            "benchmarks": [f"{name}={path}" for name, path in self.benchmarks.items()],
        }


def _some(sets: list[EvaluationSet]) -> list[Sample]:
    """About SHEET_ROWS samples, in turn from each set."""
    rounds = max(1, SHEET_ROWS // max(1, len(sets)))
    places = [(each, index) for each in sets for index in range(min(rounds, len(each.samples)))]
    return [each.samples[index] for each, index in places[:SHEET_ROWS]]
