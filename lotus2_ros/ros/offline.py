"""Processes a recording without a running ROS and writes the node's messages on the node's topics, frame by frame.

The frames go to workers in the order of the recording, and the predictions come back in the same order. References,
scale and tracking depend on earlier frames, so they are computed here, in one place.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from lotus2_ros.bags import InputError, RecordedFrame, Recording, ResumableBag
from lotus2_ros.bags.frames import Say
from lotus2_ros.bags.kept import KeptTopics, kept_topics
from lotus2_ros.bags.writer import INPUT_TOPICS, POINTS_TOPIC, BagWriter, write_frame
from lotus2_ros.config import Config
from lotus2_ros.config.errors import RunError
from lotus2_ros.config.names import NODE_PREFIX
from lotus2_ros.inference.facts import ModelFacts
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.inference.work import Workers
from lotus2_ros.ros.odometry import ODOMETRY
from lotus2_ros.ros.recorded_camera import PredictedFrame, RecordedCamera, ros_message
from lotus2_ros.ros.references import REFERENCE_TOPICS
from lotus2_ros.ros.report import frame_report
from lotus2_ros.ros.serialized import serialize
from lotus2_ros.ros.topics import PREFIXES, messages_of
from lotus2_ros.scale.ground import mounted_floor
from lotus2_ros.scale.saved import restored, saved
from lotus2_ros.scale.sources import metric_sources

CHECKPOINT_PERIOD = 5.0  # seconds; a killed run repeats at most this much work and the frames in progress
MEASURED = (*REFERENCE_TOPICS, ODOMETRY)  # sources of scale that a recording may have
NAMED = 12  # frames of one failure that are named


class NoGeometryError(RunError):
    """No frame of a recording could be used; the message gives the reason."""


@dataclass
class Task:
    """A recording, and the options for processing it."""

    recording: Recording
    source: Path
    sharpen_every: int = 0  # one frame of this many; 0: none
    keep_topics: Sequence[str] | None = None  # of the source; empty: all; None: none


@dataclass
class Outcome:
    """Counts of frames by result."""

    failures: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))  # frames by reason
    sources: Counter[str] = field(default_factory=Counter)  # results by the source of their scale
    notes: Counter[str] = field(default_factory=Counter)

    def failed_lines(self) -> list[str]:
        """The frames without geometry, by reason."""
        lines = []
        for reason, frames in self.failures.items():
            more = f" and {len(frames) - NAMED} more" if len(frames) > NAMED else ""
            lines.append(f"failed: frame {', '.join(map(str, frames[:NAMED]))}{more}: {reason}")
        return lines


def warn_above_bar(line: str) -> None:
    """On stderr, without breaking the progress bar."""
    tqdm.write(line, file=sys.stderr)


def process_recording(
    workers: Workers, task: Task, bag: ResumableBag, config: Config, warn: Say = warn_above_bar
) -> Outcome:
    """Write every frame of a recording to a bag, with all that the node would publish for it.

    A frame that cannot be used is kept without results, and ``warn`` is told why. An interrupted run goes on exactly
    where it was. Raises NoGeometryError, and ValueError if frames are to be sharpened by a model without a sharpener.
    """
    if task.sharpen_every and not any(map(config.sharp.refines, workers.facts.sharpened)):
        raise ValueError(
            f"{workers.facts.name} has no detail sharpener for the tasks of sharp.tasks; expected no --sharpen-every"
        )
    begun = bag.state or {"frames": 0, "kept": 0, "sources": {}, "failures": {}}
    with kept_topics(task.source, task.keep_topics, task.recording.topics, is_written, begun["kept"]) as kept:
        run = _Run(workers, task, bag, config, kept, warn, begun)
        run.process()
    return run.outcome


class _Run:
    def __init__(
        self,
        workers: Workers,
        task: Task,
        bag: ResumableBag,
        config: Config,
        kept: KeptTopics | None,
        warn: Say,
        begun: dict,
    ) -> None:
        self._workers, self._task, self._bag, self._config = workers, task, bag, config
        self._kept, self._warn = kept, warn
        self._camera = RecordedCamera(config, warn)
        self._done = begun["frames"]
        if "filter" in begun:
            self._camera.scale_filter = restored(begun["filter"])
            self._camera.followed = begun["followed"]
        self.outcome = Outcome()
        self.outcome.sources.update(begun["sources"])
        self.outcome.failures.update({reason: list(frames) for reason, frames in begun["failures"].items()})
        self._saved_at = time.monotonic()

    def process(self) -> None:
        recording = self._task.recording
        try:
            frames = self._camera.predicted_frames(
                self._workers, recording, done=self._done, sharpen_every=self._task.sharpen_every
            )
            for predicted in tqdm(frames, unit=" frames", initial=self._done, total=recording.count, smoothing=0.1):
                self._write(predicted)
                self._done = predicted.index + 1
                if time.monotonic() - self._saved_at > CHECKPOINT_PERIOD:
                    self._checkpoint()
        except InputError as error:  # nothing of the input can be decoded
            self.outcome.failures[str(error)].append(self._done)
        self._copy(None)
        self._check()

    def _write(self, predicted: PredictedFrame) -> None:
        frame = predicted.frame
        self._copy(frame.time_ns)
        write_frame(self._bag, frame)
        try:
            reference = self._camera.reference(predicted)
            for geometry, latency in self._camera.geometries(predicted, reference):
                write_geometry(self._bag, self._workers.facts, self._config, geometry, latency, frame)
                self.outcome.sources[geometry.scale.source if geometry.scale.metric else "none"] += 1
                self.outcome.notes[geometry.scale.note] += 1
        except (ValueError, RuntimeError, MemoryError) as error:
            self.outcome.failures[str(error)].append(predicted.index)
            self._warn(f"frame {predicted.index} has no geometry: {error}")
        self._bag.flush()

    def _copy(self, until_ns: int | None) -> None:
        for line in self._kept.copy_until(until_ns, self._bag) if self._kept else ():
            self._warn(line)

    def _checkpoint(self) -> None:
        self._bag.checkpoint(
            {
                "frames": self._done,
                "kept": self._kept.count if self._kept else 0,
                "filter": saved(self._camera.scale_filter),
                "followed": self._camera.followed,
                "sources": dict(self.outcome.sources),
                "failures": dict(self.outcome.failures),
            }
        )
        self._saved_at = time.monotonic()

    def _check(self) -> None:
        """Raise NoGeometryError if nothing came out; say so if a reference or another source was of no use."""
        recording, outcome = self._task.recording, self.outcome
        if not outcome.sources:
            self._bag.keep_partial = False
            reasons = max(outcome.failures.items(), key=lambda item: len(item[1]), default=None)
            reason = "the input has no image that can be decoded" if reasons is None else reasons[0]
            raise NoGeometryError(f"{recording.name}: no frame gave geometry: {reason}")
        useless = []
        if recording.reference and not any(source in MEASURED for source in outcome.sources):
            useless.append(f"{recording.reference}: the reference")
        if set(outcome.sources) == {"none"}:
            useless += [source.name for source in metric_sources(self._config.scale) if source.name not in MEASURED]
        note = f": {outcome.notes.most_common(1)[0][0]}" if any(outcome.notes) else ""
        for what in useless:
            self._warn(f"{what} gave no metric scale in {sum(outcome.sources.values())} results{note}")


def is_written(topic: str) -> bool:
    """Whether the output has this topic of its own."""
    return topic in (*INPUT_TOPICS, POINTS_TOPIC) or topic.startswith(NODE_PREFIX)


def write_geometry(
    bag: BagWriter,
    model: ModelFacts,
    config: Config,
    geometry: Geometry,
    latency: dict[str, float],
    frame: RecordedFrame,
) -> None:
    """The node's messages on the node's topics, at the image's stamp."""
    info = ros_message(frame.camera_info)
    header = info.header
    prefix = NODE_PREFIX + PREFIXES[geometry.stage]
    floor = mounted_floor(config.scale)
    for topic, message in messages_of(geometry, info, header, config.cloud, lambda topic: True, floor):
        bag.write_raw(prefix + topic, *serialize(message), frame.time_ns)
    report = frame_report(geometry, model, config.sharp, latency, header)
    bag.write_raw(NODE_PREFIX + "report", *serialize(report), frame.time_ns)
