"""The model's part of a recording as work for other processes: frames in, predictions out, in order.

Only the prediction for each image is computed elsewhere. It depends on no other frame, so the results do not depend on
the number of workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass, field, fields, replace
from typing import Protocol

import numpy as np
import torch

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.annotations import Annotations
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.facts import ModelFacts
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.model.engine.device import Stopwatch
from lotus2_ros.scale.scale import relative_scale


@dataclass(frozen=True)
class Request:
    """A frame for the model: pixels (H, W, 3) uint8 RGB, and whether it is to be sharpened; or why there are none.

    With ``metric_camera``, which is that of the frame, ``scale.metric_model`` sees it too.
    """

    index: int
    pixels: np.ndarray | None
    is_sharpened: bool = False
    error: Exception | None = None
    metric_camera: Camera | None = None


@dataclass(frozen=True)
class Prediction:
    """The prediction for one frame, on the host: the tensors of Annotations, and seconds by stage."""

    annotations: dict[str, np.ndarray]
    latency: dict[str, float]
    sharp: Prediction | None = field(default=None)
    metric_depth: np.ndarray | None = None  # (h, w) in meters, of scale.metric_model
    is_guided: bool = False  # see Annotations

    def geometry(self, image: torch.Tensor, camera: Camera) -> Geometry:
        """On the CPU, not aligned yet."""
        stopwatch = Stopwatch(torch.device("cpu"))
        return Geometry(image, camera, "core", relative_scale(), self.found(), stopwatch)

    def found(self) -> Annotations:
        tensors = {name: _tensor(values) for name, values in self.annotations.items()}
        return replace(Annotations(), **tensors, is_guided=self.is_guided)


def _tensor(values: np.ndarray) -> torch.Tensor:
    """Arrays that come through Ray are read-only, which tensors cannot be: those are copied."""
    return torch.from_numpy(np.require(values, requirements="W"))


def predict(estimator: Estimator, request: Request) -> Prediction:
    """Run the model. Raises ValueError and RuntimeError as :meth:`Estimator.predict`."""
    assert request.pixels is not None
    image = _tensor(request.pixels)
    coarse = estimator.unaligned(image)
    sharp = metric_depth = None
    if request.is_sharpened:
        refined = estimator.sharpen(coarse).result()
        sharp = Prediction(_arrays(refined.annotations), refined.latency, is_guided=refined.annotations.is_guided)
    if request.metric_camera is not None and estimator.metric_model is not None:
        metric_depth = estimator.metric_model.depth(image, request.metric_camera).cpu().numpy()
    found = coarse.annotations
    return Prediction(_arrays(found), coarse.latency, sharp, metric_depth, found.is_guided)


def _arrays(found: Annotations) -> dict[str, np.ndarray]:
    known = {part.name: getattr(found, part.name) for part in fields(found)}
    return {name: values.cpu().numpy() for name, values in known.items() if isinstance(values, torch.Tensor)}


class Workers(Protocol):
    """The place where the model runs: this process, other processes, or a cluster."""

    facts: ModelFacts
    capacity: int  # requests in progress that keep all workers busy

    def submit(self, request: Request) -> Future[Prediction]:
        """Its result may raise BrokenExecutor if a worker died."""

    def restart(self) -> None:
        """After a worker died."""

    def close(self) -> None: ...


class OwnProcess:
    """The model in this process: each request is done at once."""

    capacity = 1

    def __init__(self, estimator: Estimator) -> None:
        self._estimator = estimator
        self.facts = ModelFacts.of(estimator)

    def submit(self, request: Request) -> Future[Prediction]:
        return _done(lambda: predict(self._estimator, request))

    def restart(self) -> None: ...

    def close(self) -> None: ...


class WorkerLostError(RuntimeError):
    """A frame ended a worker, more than once."""


@dataclass(frozen=True)
class Completed:
    request: Request
    future: Future[Prediction]  # done


def in_order(workers: Workers, requests: Iterable[Request]) -> Iterator[Completed]:
    """Every request with its prediction or error, in order. At most ``workers.capacity`` of them are in memory.

    When a worker dies, everything in progress is submitted again, one frame at a time. A frame that ends a worker again
    gets WorkerLostError, the others get their predictions.
    """
    waiting: deque[Completed] = deque()
    for request in requests:
        waiting.append(Completed(request, _submit(workers, request)))
        if len(waiting) >= workers.capacity:
            yield _first(workers, waiting)
    while waiting:
        yield _first(workers, waiting)


def _submit(workers: Workers, request: Request) -> Future[Prediction]:
    if request.error is not None:
        return _failed(request.error)
    try:
        return workers.submit(request)
    except BrokenExecutor as error:  # it is noticed when its result is asked for
        return _failed(error)


def _first(workers: Workers, waiting: deque[Completed]) -> Completed:
    """The oldest, as soon as it is done."""
    if isinstance(waiting[0].future.exception(), BrokenExecutor):
        workers.restart()
        for number, lost in enumerate(waiting):
            if not lost.future.done() or isinstance(lost.future.exception(), BrokenExecutor):
                waiting[number] = _alone(workers, lost)
    return waiting.popleft()


def _alone(workers: Workers, lost: Completed) -> Completed:
    future = _submit(workers, lost.request)
    if isinstance(future.exception(), BrokenExecutor):
        workers.restart()
        future = _failed(WorkerLostError("a worker died of it twice (killed, or out of memory)"))
    return replace(lost, future=future)


def _done(compute: Callable[[], Prediction]) -> Future[Prediction]:
    future: Future[Prediction] = Future()
    try:
        future.set_result(compute())
    except Exception as error:  # it is raised where the result is read
        future.set_exception(error)
    return future


def _failed(error: BaseException) -> Future[Prediction]:
    future: Future[Prediction] = Future()
    future.set_exception(error)
    return future
