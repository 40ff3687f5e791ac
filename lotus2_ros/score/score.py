"""A recording through the model, scored by its own lidar or depth camera."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from statistics import median

import torch
from tqdm import tqdm

from lotus2_ros.bags import Recording
from lotus2_ros.bags.frames import Say
from lotus2_ros.config import Config
from lotus2_ros.config.errors import RunError
from lotus2_ros.evaluation.metrics import DepthError, depth_error
from lotus2_ros.inference.facts import ModelFacts
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.inference.work import Workers
from lotus2_ros.ros.recorded_camera import PredictedFrame, RecordedCamera
from lotus2_ros.scale.reference import Reference
from lotus2_ros.score.held_out import split
from lotus2_ros.view.preview import Row


@dataclass(frozen=True)
class FrameScore:
    """Of one frame with measurements of its own time."""

    error: DepthError  # at the held-out measurements that have depth
    coverage: float  # share of the held-out measurements that have depth


@dataclass
class CameraScore:
    """Of one camera of one recording."""

    name: str
    model: ModelFacts
    resolution: int  # longer side at which the model sees the images; 0: the model's own
    frames: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    scores: list[FrameScore] = field(default_factory=list)
    latencies: list[dict[str, float]] = field(default_factory=list)  # seconds by stage
    stamps: list[float] = field(default_factory=list)  # of the frames with latencies
    shown: Row | None = None  # the frame nearest to the median error
    shown_error: float = math.nan

    @property
    def seconds(self) -> list[float]:
        return [sum(latency.values()) for latency in self.latencies]

    @property
    def drops(self) -> int:
        """Frames that a node as fast as this would have dropped while the recording was made."""
        return dropped(self.stamps, self.seconds)

    def median(self, name: str) -> float:
        """The median of ``abs_rel``, ``delta1`` or ``coverage`` over the frames."""
        values = [score.coverage if name == "coverage" else getattr(score.error, name) for score in self.scores]
        return median(values) if values else math.nan


def score_recording(workers: Workers, recording: Recording, config: Config, share: float, warn: Say) -> CameraScore:
    """Score every frame by ``share`` of the measurements of its time. Raises RunError if no frame can be scored."""
    warn = cache(warn)  # both cameras meet the same messages
    camera = RecordedCamera(config, warn)
    truth = RecordedCamera(config.updated({"scale.source": "auto"}), warn)  # measures, wherever the scale comes from
    result = CameraScore(recording.name, workers.facts, config.model.process_resolution)
    frames = camera.predicted_frames(workers, recording)
    for predicted in tqdm(frames, unit=" frames", total=recording.count):
        result.frames += 1
        try:
            measured = truth.reference(replace(predicted, image=None))  # not by the camera's motion
            _score_frame(result, camera, predicted, measured, config, share)
        except (ValueError, RuntimeError, MemoryError) as error:
            result.failures[str(error)] += 1
    if not result.scores:
        reasons = (result.failures + result.notes).most_common(1)
        why = f": {reasons[0][0]}" if reasons and reasons[0][0] else ""
        expected = "expected depth images or points of the time of the images (--reference-topic)"
        raise RunError(f"{recording.name}: no frame can be scored; {expected}{why}")
    return result


def _score_frame(
    result: CameraScore,
    camera: RecordedCamera,
    predicted: PredictedFrame,
    measured: Reference | None,
    config: Config,
    share: float,
) -> None:
    held = None
    reference = camera.reference(predicted)
    stamp = predicted.frame.stamp_ns * 1e-9
    if measured is not None and config.scale.is_near(measured.stamp, stamp):
        given, held = split(measured, share, seed=predicted.index)
        if reference is not None and reference.source == measured.source:
            reference = given
    geometry, latency = next(camera.geometries(predicted, reference))
    result.latencies.append(latency)
    result.stamps.append(stamp)
    result.sources[geometry.scale.source if geometry.scale.metric else "none"] += 1
    result.notes[geometry.scale.note] += bool(geometry.scale.note)
    if held is None or not len(held.depth) or not geometry.scale.metric or geometry.depth is None:
        return
    depth = held.predicted(geometry.depth)
    known = torch.isfinite(depth)
    if bool(known.any()):
        error = depth_error(depth[known], held.depth[known])
        result.scores.append(FrameScore(error, float(known.float().mean())))
        _show(result, geometry, error.abs_rel)


def _show(result: CameraScore, geometry: Geometry, error: float) -> None:
    """Keep the frame if it is nearer to the median error than the one that is kept."""
    middle = result.median("abs_rel")
    if result.shown is None or abs(error - middle) < abs(result.shown_error - middle):
        title = f"AbsRel {error:.3f}"
        result.shown = Row(
            title, geometry.image, geometry.disparity, geometry.depth, geometry.normals, geometry.camera, metric=True
        )
        result.shown_error = error


def dropped(stamps: Sequence[float], seconds: Sequence[float]) -> int:
    """Frames lost by a latest queue: while the model is busy, a newer frame replaces the one that waits."""
    free, waiting, lost = -math.inf, None, 0
    for stamp, needed in zip(stamps, seconds, strict=True):
        if waiting is not None and free <= stamp:
            free, waiting = free + waiting, None
        if free <= stamp:
            free = stamp + needed
        else:
            lost += waiting is not None
            waiting = needed
    return lost
