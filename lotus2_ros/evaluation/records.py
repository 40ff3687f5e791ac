"""The loop over all samples: goes on where it was stopped, and is shared by several processes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lotus2_ros.evaluation.measure import Record
from lotus2_ros.evaluation.parts import EvaluationSet
from lotus2_ros.inference.estimator import Estimator

Key = tuple[str, str, int]  # group, part, sample


def start(folder: Path, settings: dict[str, Any], resume: bool) -> None:
    """Make `folder` ready for records of an evaluation with these `settings`.

    Raises ValueError if it is to be resumed and the records there are of another evaluation.
    """
    folder.mkdir(parents=True, exist_ok=True)
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
    parts: Sequence[EvaluationSet],
    steps: int | None,
    folder: Path,
    process: int = 0,
    processes: int = 1,
) -> None:
    """Measure each sample that `folder` has no record of, of these every `processes`-th from `process` on.

    A record is one line of JSON, written when its sample is done; the angles of normals lie beside it in angles/.
    """
    done = set(read_records(folder))
    everything = [(part, index) for part in parts for index in range(len(part.samples))]
    mine = [job for job in everything[process::processes] if (job[0].group, job[0].name, job[1]) not in done]
    (folder / "angles").mkdir(exist_ok=True)
    file = folder / f"records-{process}.jsonl"
    _drop_unfinished_line(file)
    with file.open("a") as records:
        for part, index in tqdm(mine, desc="samples", disable=process > 0):
            try:
                record, angles = part.run(estimator, part.samples[index], steps)
            except ValueError as error:
                raise ValueError(f"{part.name}, sample {index}: {error}") from error
            for stage, values in angles.items():
                np.save(angle_file(folder, part, stage, index), values.numpy().astype(np.float32))
            records.write(json.dumps({"key": [part.group, part.name, index], **record}) + "\n")
            records.flush()


def read_records(folder: Path) -> dict[Key, Record]:
    """All records there are, of whichever process."""
    records = {}
    for file in sorted(folder.glob("records-*.jsonl")):
        for line in _finished_lines(file.read_text()):
            record = json.loads(line)
            group, part, index = record.pop("key")
            records[group, part, index] = record
    return dict(sorted(records.items()))


def angle_file(folder: Path, part: EvaluationSet, stage: str, index: int) -> Path:
    return folder / "angles" / f"{part.name}-{stage}-{index}.npy"


def _finished_lines(text: str) -> Iterator[str]:
    yield from (line for line in text.splitlines(keepends=True) if line.endswith("\n"))


def _drop_unfinished_line(file: Path) -> None:
    """What a process was killed in the middle of writing."""
    if file.exists():
        file.write_text("".join(_finished_lines(file.read_text())))
