"""The sets of samples that an evaluation consists of; the samples of a set are measured in the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from torch import Tensor

from lotus2_ros import scenes
from lotus2_ros.data.benchmarks import Benchmark
from lotus2_ros.data.sample import Sample
from lotus2_ros.evaluation.frames import read_frames
from lotus2_ros.evaluation.measure import Record, measure, measure_benchmark, measure_detail, measure_sequence
from lotus2_ros.inference.estimator import Estimator

SCENE_SIZE = (320, 240)
SEQUENCE_FRAMES = 16
PLACES = ("room", "corridor", "warehouse", "street")

Item = TypeVar("Item", covariant=True)


@dataclass(frozen=True)
class EvaluationSet:
    """Samples that make one row of a table of their `group`.

    Groups: scenes, things, detail, sequences, frames, depth, normals. run(estimator, sample, steps) returns a record,
    and angular errors (N,) by stage that are pooled over the set.
    """

    name: str
    group: str
    samples: Sequence[Any]
    run: Callable[[Estimator, Any, int | None], tuple[Record, dict[str, Tensor]]]


class LazySequence(Sequence[Item], Generic[Item]):
    """``count`` samples, each made when it is accessed."""

    def __init__(self, count: int, make: Callable[[int], Item]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        if isinstance(index, slice):
            return [self._make(i) for i in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._make(index)


def scene_sets(estimator: Estimator, first_seed: int, count: int) -> list[EvaluationSet]:
    """Held-out scenes of every kind: from anywhere, of things from near, and at the model's resolution for detail.

    Raises ValueError if the scenes would be among those trained on.
    """
    if not 0 <= first_seed <= scenes.TRAINING_SEEDS - count:
        raise ValueError(f"expected held-out scenes, numbers below {scenes.TRAINING_SEEDS}, got {first_seed}")
    longer = estimator.process_resolution
    height, width = estimator.model.process_size(longer * 3 // 4, longer, longer)
    sets = []
    for group, run, size in (
        ("scenes", measure, SCENE_SIZE),
        ("things", measure, SCENE_SIZE),
        ("detail", measure_detail, (width, height)),
    ):
        for kind in scenes.KINDS:
            samples = LazySequence(count, partial(_scene, first_seed, kind, size, group == "things"))
            sets.append(EvaluationSet(kind, group, samples, partial(_without_angles, run)))
    return sets


def sequence_sets(first_seed: int, count: int) -> list[EvaluationSet]:
    """Held-out sequences of a camera that moves through each kind of place."""

    def sequence(kind: str, index: int) -> list[scenes.View]:
        return list(scenes.sequence(first_seed + index, SEQUENCE_FRAMES, *SCENE_SIZE, kind))

    run = partial(_without_angles, measure_sequence)
    return [EvaluationSet(kind, "sequences", LazySequence(count, partial(sequence, kind)), run) for kind in PLACES]


def frame_sets(folders: Sequence[Path]) -> list[EvaluationSet]:
    """Recorded frames, one per set."""
    frames = [frame for folder in folders for frame in read_frames(folder)]
    return [EvaluationSet(frame.name, "frames", [frame], partial(_without_angles, measure)) for frame in frames]


def benchmark_set(benchmark: Benchmark, path: Path) -> EvaluationSet:
    """A published data set."""

    def run(estimator: Estimator, sample: Sample, steps: int | None) -> tuple[Record, dict[str, Tensor]]:
        return measure_benchmark(estimator, sample, steps, benchmark)

    return EvaluationSet(benchmark.name, benchmark.task, benchmark.open(path), run)


def _scene(first_seed: int, kind: str, size: tuple[int, int], close_up: bool, index: int) -> Sample:
    view = scenes.view(first_seed + index, *size, kind, close_up=close_up)
    # K describes a pinhole only.
    K = view.camera.K if view.camera.lens is None else None
    return Sample(f"{kind} {first_seed + index}", view.image, view.depth, view.normals, K)


def _without_angles(
    run: Callable[..., Record], estimator: Estimator, sample: Any, steps: int | None
) -> tuple[Record, dict[str, Tensor]]:
    return run(estimator, sample, steps), {}
