"""The loop over all samples and its records: it resumes where it was stopped, and several processes can share it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lotus2_ros.config.output import mark
from lotus2_ros.evaluation.measure import Record
from lotus2_ros.evaluation.sets import EvaluationSet
from lotus2_ros.inference.estimator import Estimator

Key = tuple[str, str, int]  # group, set, sample


def prepare_folder(folder: Path, settings: dict[str, Any], resume: bool) -> None:
    """Make `folder` ready for records of an evaluation with these `settings`.

    Raises ValueError if it is to be resumed and its records are those of another evaluation.
    """
    mark(folder, "evaluate")
    written = folder / "settings.json"
    if resume and written.exists():
        previous = json.loads(written.read_text())
        changed = [name for name, value in settings.items() if previous.get(name) != value]
        if changed:
            name = changed[0]
            raise ValueError(
                f"{folder}: expected to resume an evaluation with {name} {settings[name]!r}, got {previous.get(name)!r}"
            )
        return
    for old in (*folder.glob("records-*.jsonl"), *folder.glob("angles/*.npy")):
        old.unlink()
    written.write_text(json.dumps(settings, indent=2))


def measure_all(
    estimator: Estimator,
    sets: Sequence[EvaluationSet],
    steps: int | None,
    folder: Path,
    process: int = 0,
    processes: int = 1,
) -> None:
    """Measure each sample that `folder` has no record of; of several processes, each takes every `processes`-th sample.

    A record is one line of JSON, written when its sample is done; the angles of normals lie beside it in angles/.
    """
    done = set(read_records(folder))
    everything = [(dataset, index) for dataset in sets for index in range(len(dataset.samples))]
    mine = [job for job in everything[process::processes] if (job[0].group, job[0].name, job[1]) not in done]
    (folder / "angles").mkdir(exist_ok=True)
    file = folder / f"records-{process}.jsonl"
    _drop_unfinished_line(file)
    with file.open("a") as records:
        for dataset, index in tqdm(mine, desc="samples", disable=process > 0):
            try:
                record, angles = dataset.run(estimator, dataset.samples[index], steps)
            except ValueError as error:
                raise ValueError(f"{dataset.name}, sample {index}: {error}") from error
            for stage, values in angles.items():
                np.save(angle_file(folder, dataset, stage, index), values.numpy().astype(np.float32))
            records.write(json.dumps({"key": [dataset.group, dataset.name, index], **record}) + "\n")
            records.flush()


def read_records(folder: Path) -> dict[Key, Record]:
    """All records in `folder`, of every process."""
    records = {}
    for file in sorted(folder.glob("records-*.jsonl")):
        for line in _finished_lines(file.read_text()):
            record = json.loads(line)
            group, dataset, index = record.pop("key")
            records[group, dataset, index] = record
    return dict(sorted(records.items()))


def angle_file(folder: Path, dataset: EvaluationSet, stage: str, index: int) -> Path:
    return folder / "angles" / f"{dataset.name}-{stage}-{index}.npy"


def _finished_lines(text: str) -> Iterator[str]:
    yield from (line for line in text.splitlines(keepends=True) if line.endswith("\n"))


def _drop_unfinished_line(file: Path) -> None:
    """Remove the line that a process was writing when it was killed."""
    if file.exists():
        file.write_text("".join(_finished_lines(file.read_text())))
