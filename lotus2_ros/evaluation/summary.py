"""Averages of the records of all samples: the numbers of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lotus2_ros.evaluation.angles import pooled_angular_error
from lotus2_ros.evaluation.measure import Record
from lotus2_ros.evaluation.records import Key, angle_file
from lotus2_ros.evaluation.sets import EvaluationSet

Means = dict[str, Any]  # by path, such as core/depth/abs_rel; `samples`: their number
POOLED = "all"


def flat(record: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """A record by path: {"core": {"depth": 1}} becomes {"core/depth": 1}."""
    paths: dict[str, Any] = {}
    for name, value in record.items():
        path = f"{above}{name}"
        paths.update(flat(value, f"{path}/") if isinstance(value, Mapping) else {path: value})
    return paths


def average(records: Sequence[Record]) -> Means:
    """Mean of every number, and of every list element-wise, over the records that have it."""
    found: dict[str, list[Any]] = {}
    for record in records:
        for path, value in flat(record).items():
            found.setdefault(path, []).append(value)
    return {"samples": len(records), **{path: np.mean(values, axis=0).tolist() for path, values in found.items()}}


def summarize(
    sets: Sequence[EvaluationSet], records: Mapping[Key, Record], folder: Path
) -> dict[str, dict[str, Means]]:
    """Means by group and set, and for most groups over all their sets under the name ``POOLED``.

    Data sets of normals also have the angular errors pooled over all pixels.
    """
    summary: dict[str, dict[str, Means]] = {}
    for dataset in sets:
        of_set = [records[dataset.group, dataset.name, index] for index in range(len(dataset.samples))]
        means = average(of_set)
        for stage in ("core", "sharp") if dataset.group == "normals" else ():
            files = [angle_file(folder, dataset, stage, index) for index in range(len(dataset.samples))]
            if files[0].exists():
                means.update(flat({stage: {"pooled": asdict(pooled_angular_error(files))}}))
        summary.setdefault(dataset.group, {})[dataset.name] = means
    for group in summary.keys() & {"scenes", "things", "detail", "sequences", "frames"}:
        summary[group][POOLED] = average([record for (of_group, *_), record in records.items() if of_group == group])
    return summary


def figures(summary: Mapping[str, Mapping[str, Means]]) -> dict[str, float]:
    """The few numbers that a model is judged by, by title."""
    found: dict[str, float] = {}
    if scenes := summary.get("scenes"):
        found |= _scene_figures(scenes[POOLED])
    if things := summary.get("things"):
        found["held-out views of things, AbsRel / row"] = ratio_to_row(things[POOLED])
    if detail := summary.get("detail"):
        found |= _detail_figures(detail[POOLED])
    if frames := summary.get("frames"):
        ratios = [math.log(ratio_to_row(means)) for name, means in frames.items() if name != POOLED]
        found["recorded frames, geometric mean of AbsRel / row"] = math.exp(sum(ratios) / len(ratios))
    return found


def ratio_to_row(means: Means) -> float:
    """AbsRel over that of the image-row baseline."""
    return means.get("core/depth/abs_rel", math.nan) / means["row/depth/abs_rel"]


def high_frequency(means: Means, stage: str) -> float | None:
    """Geometric mean of the power above half the Nyquist frequency over the truth's."""
    logarithm = means.get(f"{stage}/log_high_frequency_ratio")
    return None if logarithm is None else math.exp(logarithm)


def _scene_figures(means: Means) -> dict[str, float]:
    found = {"held-out scenes, AbsRel / row": ratio_to_row(means)}
    if "core/normals" in means:
        found["held-out scenes, normals, degrees"] = means["core/normals"]
    if "core/agreement" in means:
        found["held-out scenes, normals from depth against predicted normals, degrees"] = means["core/agreement"]
    if "core/uncertainty/ause" in means:
        found["held-out scenes, AUSE of the uncertainty"] = means["core/uncertainty/ause"]
        found["held-out scenes, AUSE of a random order"] = means["core/uncertainty/random"]
    if "sharp/depth/abs_rel" in means:
        change = means["sharp/depth/abs_rel"] - means["core/depth/abs_rel"]
        found["held-out scenes, change of AbsRel by the sharpener"] = change
    return found


def _detail_figures(means: Means) -> dict[str, float]:
    found = {"held-out scenes, boundary F1": means["core/boundary/f1"]}
    core, sharp = (high_frequency(means, stage) for stage in ("core", "sharp"))
    if core is not None and sharp is not None:
        found["held-out scenes, boundary F1, sharpened"] = means["sharp/boundary/f1"]
        # The truth has a ratio of 1. Below 0 the sharpener widens the gap to it.
        closed, closed_log = 1 - abs(1 - sharp) / abs(1 - core), 1 - abs(math.log(sharp)) / abs(math.log(core))
        found["held-out scenes, share of the missing high-frequency power that the sharpener adds"] = closed
        found["the same in log power, as in Fig. 12 of the paper"] = closed_log
    return found
