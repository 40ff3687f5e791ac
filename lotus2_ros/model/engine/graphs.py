"""CUDA graphs: the work for each image size is recorded once and then replayed without Python and launch overhead."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from lotus2_ros.config.errors import first_line

log = logging.getLogger(__name__)

# Eager runs before a recording, in which libraries choose kernels and allocate their workspaces.
WARM_UP = 2
# Recordings kept; each image size has a handful: encoder, cores, sharpeners, decoder.
GRAPHS = 32


@dataclass(frozen=True)
class RecordedGraph:
    """Recorded work: `replay` computes `output` from the current content of the recorded input tensors."""

    output: Tensor
    replay: Callable[[], None]


class CudaRecorder:
    """Records CUDA graphs that share memory for intermediate results, so only one may run at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()

    def __call__(self, run: Callable[[], Tensor]) -> RecordedGraph:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                run()
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads may allocate and copy during the recording.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            output = run()
        return RecordedGraph(output, graph.replay)


class Graphs:
    """A `TorchModel.executor` that records each function for each key and each shape of its tensors, and replays it.

    The functions must not change their tensors. `record(run)` records run(). The `limit` most recently used recordings
    are kept. A function that cannot be recorded runs eagerly from then on, with a warning.
    """

    def __init__(self, record: Callable[[Callable[[], Tensor]], RecordedGraph], limit: int = GRAPHS) -> None:
        self._record = record
        self._limit = limit
        self._recordings: dict[tuple, tuple[list[Tensor], RecordedGraph]] = {}
        self._refused: set[tuple] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._recordings)

    @torch.inference_mode()
    def __call__(self, key: tuple, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        with one_thread(self._lock):
            return self._run((key, *((tensor.shape, tensor.dtype) for tensor in tensors)), function, tensors)

    def _run(self, key: tuple, function: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> Tensor:
        if key in self._refused:
            return function(*tensors)
        if key not in self._recordings:
            inputs = [tensor.clone(memory_format=torch.contiguous_format) for tensor in tensors]
            try:
                recording = self._record(lambda: function(*inputs))
            except RuntimeError as error:
                log.warning("%s runs without a CUDA graph: %s", key[0][0], first_line(error))
                self._refused.add(key)
                return function(*tensors)
            while len(self._recordings) >= self._limit:
                del self._recordings[next(iter(self._recordings))]
        else:
            inputs, recording = self._recordings.pop(key)
        self._recordings[key] = inputs, recording  # most recently used last
        for static, tensor in zip(inputs, tensors, strict=True):
            static.copy_(tensor)
        recording.replay()
        return recording.output.clone()  # the next replay overwrites it


@contextmanager
def one_thread(lock: threading.Lock) -> Iterator[None]:
    """Hold an executor's lock. Fails instead of waiting: using one model from two threads is a programming error."""
    if not lock.acquire(blocking=False):
        raise RuntimeError("the model is already running in another thread; one thread at a time may use it")
    try:
        yield
    finally:
        lock.release()
