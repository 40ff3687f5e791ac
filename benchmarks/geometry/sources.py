"""Depth by each source of the scale on the same sequences and recorded frames, and what each costs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import thread_time

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.geometry.field import INDOORS, OUTDOORS
from benchmarks.geometry.figure import Figure
from benchmarks.geometry.odometry import (
    FRAMES,
    HEIGHT,
    MOTIONS,
    SEEDS,
    WIDTH,
    Seen,
    noisy,
    recorded,
    rendered,
    triangulated,
)
from benchmarks.geometry.truth import FAR, camera_of, draw, is_dense, known, prediction, sparse
from lotus2_ros.config import ScaleConfig
from lotus2_ros.evaluation.frames import read_frames
from lotus2_ros.evaluation.metrics import depth_error
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.loading import load
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.metric_model import metric_reference
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.scale import RelativeGeometry

WHAT = "AbsRel by source of the scale"
DEPTH_CAMERA = 4000  # pixels
NOISE = 0.01  # of each measurement, share of depth
QUICK_FRAMES = 5  # odometry is metric from the fourth on
SETTLED = 10  # frames of a sequence that are not counted: odometry needs some motion first
OFF = 1.0  # degrees of a mount that was not measured well
# The stand-in for a metric model: its size is wrong by this share, and its shape too, over patches of the image.
SIZE, SHAPE, PATCHES = 0.15, 0.1, (3, 4)
PERIOD = 10  # frames between its answers
KITTI_HEIGHT = 1.65  # meters, of its cameras above the road; they look level
RECORDED = 120  # frames of a recorded sequence


@dataclass(frozen=True)
class Case:
    """A source with its settings, and what it measures for each frame."""

    name: str
    references: Sequence[Reference | None]
    config: ScaleConfig = field(default_factory=ScaleConfig)
    before: Sequence[float] = (0.0,)  # milliseconds of CPU for the references


# By source and sequence: AbsRel, and milliseconds of CPU for a frame.
Measured = dict[str, dict[str, tuple[float, float]]]


def figures(frames: Path | None, quick: bool) -> Iterator[Figure]:
    estimator = load(parameters={"model.threads": 1})
    spent: dict[str, list[float]] = {}
    for kind in ("room",) if quick else SEEDS:
        found: Measured = {}
        for motion in MOTIONS[:1] if quick else MOTIONS:
            sequence = list(rendered(kind, motion, QUICK_FRAMES if quick else FRAMES))
            cases = *of_references(sequence), *of_motion(sequence), *of_others(sequence)
            measure(found, motion, cases, sequence, estimator)
        yield from _figures(found, kind)
        for name, each in found.items():
            spent.setdefault(name, []).extend(milliseconds for _, milliseconds in each.values())
    if frames is not None:
        yield from _recorded_figures(estimator, frames)
    for name, milliseconds in spent.items():
        yield Figure("CPU time of a frame's scale", f"{name}, {WIDTH}x{HEIGHT}", statistics.median(milliseconds), "ms")


def _recorded_figures(estimator: Estimator, frames: Path) -> Iterator[Figure]:
    """Of frames that stand alone, and of sequences with poses."""
    found: Measured = {}
    for frame in read_frames(frames):
        alone = [Seen(frame.image, known(frame.depth), np.eye(4), camera_of(frames, frame), 0.0)]
        cases = [*of_references(alone), _of_shape(alone)]
        if "kitti" in frame.name:
            cases.append(Case("camera_height", [None], ScaleConfig("camera_height", camera_height=KITTI_HEIGHT)))
        measure(found, frame.name, cases, alone, estimator)
    yield from _figures(found, "recorded")
    for poses in sorted(frames.glob("*/poses.txt")):
        sequence = recorded(poses.parent, RECORDED)
        found = {}
        cases = [*of_references(sequence), *of_motion(sequence), _of_shape(sequence)]
        measure(found, poses.parent.name, cases, sequence, estimator)
        yield from _figures(found, f"{len(sequence)} recorded frames")


def _figures(found: Measured, kind: str) -> Iterator[Figure]:
    for name, each in found.items():
        beside = ", ".join(f"{sequence} {error:.3f}" for sequence, (error, _) in each.items())
        yield Figure(WHAT, f"{name}; {kind}", statistics.mean(error for error, _ in each.values()), "", None, beside)


def of_references(sequence: Sequence[Seen]) -> Iterator[Case]:
    """A depth camera; a lidar or SLAM."""
    points = INDOORS if is_dense(sequence[0].depth) else OUTDOORS
    yield Case("reference_depth", [_measurement(seen, DEPTH_CAMERA, number) for number, seen in enumerate(sequence)])
    few = [_measurement(seen, points, number) for number, seen in enumerate(sequence)]
    yield Case("reference_points", few)
    yield Case("reference_points, line alone", few, ScaleConfig(local_field=False))


def of_motion(sequence: Sequence[Seen]) -> Iterator[Case]:
    """Odometry: exact, and with the noise that the part `odometry` tells of."""
    for name, poses in (("true", [seen.pose for seen in sequence]), ("noisy", noisy(sequence))):
        references, spent = triangulated(sequence, poses)
        yield Case(f"odometry, {name} poses", references, ScaleConfig("odometry"), spent)


def of_others(sequence: Sequence[Seen]) -> Iterator[Case]:
    """What needs no measurements."""
    for off in (0.0, OFF):
        yield Case(f"camera_height, pitch {off:g} degrees off", [None] * len(sequence), mount(sequence, off))
    model = ScaleConfig("metric_model", metric_model="a stand-in")
    for size in (1 + SIZE, 1 / (1 + SIZE)):
        yield Case(f"metric_model, a stand-in of size {size:.2f}", metric_answers(sequence, size), model)
    yield _of_shape(sequence)


def _of_shape(sequence: Sequence[Seen]) -> Case:
    return Case("none, after one factor", [None] * len(sequence), ScaleConfig("none"))


def mount(sequence: Sequence[Seen], off: float) -> ScaleConfig:
    """The camera's mean height and tilt, as one measures them on a robot: its shaking is not known."""
    height, up = np.mean([seen.pose[2, 3] for seen in sequence]), np.mean([seen.pose[2, :3] for seen in sequence], 0)
    pitch, roll = math.degrees(math.asin(-up[2] / np.linalg.norm(up))), math.degrees(math.atan2(-up[0], -up[1]))
    return ScaleConfig("camera_height", camera_height=float(height), camera_pitch=pitch + off, camera_roll=roll)


def metric_answers(sequence: Sequence[Seen], size: float) -> list[Reference | None]:
    """True depth of a wrong size and with bumps; one answer in PERIOD frames, a frame late, as the node has it."""
    generator = torch.Generator().manual_seed(0)
    patches = SHAPE * torch.randn(1, 1, *PATCHES, generator=generator)
    bumps = F.interpolate(patches, sequence[0].depth.shape, mode="bicubic")[0, 0]
    answers: list[Reference | None] = [None] * len(sequence)
    for number in range(0, len(sequence) - 1, PERIOD):
        seen = sequence[number]
        answers[number + 1] = metric_reference(size * seen.depth.nan_to_num(FAR) * bumps.exp(), seen.stamp)
    return answers


def measure(found: Measured, name: str, cases: Iterable[Case], sequence: Sequence[Seen], estimator: Estimator) -> None:
    """Add what each source gives in a sequence to ``found``."""
    predictions = [prediction(estimator, seen.image, seen.camera, seen.stamp) for seen in sequence]
    for case in cases:
        found.setdefault(case.name, {})[name] = _measured(case, sequence, predictions)


def _measured(case: Case, sequence: Sequence[Seen], predictions: Sequence[RelativeGeometry]) -> tuple[float, float]:
    """AbsRel where nothing was measured, of the frames with meters; and median milliseconds of CPU."""
    scale_filter, errors, spent = ScaleFilter(), [], []
    for seen, predicted, reference in zip(sequence, predictions, case.references, strict=True):
        start = thread_time()
        scale = scale_filter.align(predicted, reference, case.config)
        spent.append(1e3 * (thread_time() - start))
        depth, truth = scale.depth_of(predicted.disparity, predicted.image).nan_to_num(FAR), seen.depth
        if reference is not None and reference.source.startswith("reference"):
            truth = truth.masked_fill(torch.isfinite(reference.depth), torch.nan)
        if case.config.source == "none":
            depth = depth * (truth / depth).nanmedian()
        elif not scale.metric:
            depth = torch.full_like(depth, torch.nan)
        at = torch.isfinite(truth)
        errors.append(depth_error(depth.clamp_max(FAR)[at], truth[at]).abs_rel)
    settled = errors[SETTLED:] or errors
    return float(np.nanmean(settled)), statistics.median(spent) + statistics.median(case.before)


def _measurement(seen: Seen, points: int, number: int) -> Reference:
    """Some pixels of the true depth, with noise."""
    chosen, values = draw(seen.depth, points, 0.0, number)
    noise = torch.randn(len(values), generator=torch.Generator().manual_seed(number))
    name = "reference_depth" if points == DEPTH_CAMERA else "reference_points"
    return Reference(sparse(chosen, values * (1 + NOISE * noise), seen.depth.shape), seen.stamp, name)
