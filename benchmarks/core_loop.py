"""How long frames take from a camera to their depth on the host, through the worker, sharpener idle or busy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from benchmarks.timing import percentile
from lotus2_ros.config import SharpConfig
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.sharpening import Sharpening
from lotus2_ros.model.engine.device import Download, copy_stream, use_threads
from lotus2_ros.ros.threads import LatestQueue, ModelThread, Predictable

LEFT_OUT = 10  # frames at the start
STOP_TIMEOUT = 60.0


@dataclass(frozen=True)
class LoopResult:
    """Latencies in ms; Euler steps of the sharpener per second; frames that newer ones replaced."""

    p50: float
    p95: float
    p99: float
    steps_per_second: float
    dropped: int


@dataclass(frozen=True)
class Waiting:
    """A frame that waits for the model."""

    predict: Callable[[], Coarse | None]


@dataclass(frozen=True)
class Coarse:
    """A result to sharpen."""

    sharp: SharpConfig
    sharpen: Callable[[], CountedSteps]
    camera: str = "camera"


class CountedSteps:
    """A sharpening that adds its steps to a count."""

    def __init__(self, sharpening: Sharpening, count: list[int]) -> None:
        self._sharpening = sharpening
        self._count = count

    def step(self) -> bool:
        self._count[0] += 1
        remain = self._sharpening.step()
        if not remain:
            self._sharpening.result()  # the node decodes it too
        return remain


def run_core_loop(estimator: Estimator, image: Tensor, period: float, frames: int, *, busy: bool) -> LoopResult:
    """`frames` frames of a camera that sends one each `period` seconds; busy: the sharpener never rests."""
    queue: LatestQueue[Predictable] = LatestQueue()
    stream = copy_stream(estimator.device)
    latencies: list[float] = []
    steps = [0]
    errors: list[Exception] = []
    over = threading.Event()

    sharp = replace(estimator.config.sharp, period=0.0)

    def predict(arrived: float) -> Coarse | None:
        geometry = estimator.predict(image, tasks=("depth",))
        Download({"depth": geometry.depth}, stream).wait()
        latencies.append(1e3 * (time.perf_counter() - arrived))
        if len(latencies) >= frames + LEFT_OUT:
            over.set()
        return Coarse(sharp, lambda: CountedSteps(estimator.sharpen(geometry), steps)) if busy else None

    def failed(error: Exception) -> None:
        errors.append(error)
        over.set()

    worker = ModelThread(queue, failed, enter=lambda: use_threads(estimator.config.model.threads))
    worker.start()
    start = time.perf_counter()
    while not over.wait(period):
        queue.put("camera", Waiting(partial(predict, time.perf_counter())))
    seconds = time.perf_counter() - start
    worker.stop(STOP_TIMEOUT)
    if errors:
        raise errors[0]
    measured = latencies[LEFT_OUT:]
    p50, p95, p99 = (percentile(measured, share) for share in (0.50, 0.95, 0.99))
    return LoopResult(p50, p95, p99, steps[0] / seconds, queue.dropped["camera"])
