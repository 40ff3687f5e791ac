"""Copies between host and device, and times on the device, with as few synchronizations as possible.

On the CPU nothing is copied and nothing waits.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

# glibc's malloc.h: thresholds for returning freed memory to the system, and for mapping a block on its own.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 128 << 20
OWN_PAGES_BYTES = 32 << 20  # the largest that glibc takes

ALL_THREADS = torch.get_num_threads()  # torch's default, read before anything changes it


def use_threads(count: int) -> None:
    """Set the number of CPU threads for torch operations of the calling thread; 0: torch's default.

    Two threads whose OpenMP teams together exceed the cores make each other sleep after every operation, which doubles
    the model's time. A thread that uses one CPU thread has no team.
    """
    torch.set_num_threads(count or ALL_THREADS)


def keep_freed_memory() -> None:
    """Let the process keep up to ``KEPT_BYTES`` of freed memory for later allocations.

    By default glibc returns a frame's memory to the system, which then clears and maps every page again for the next
    frame: 5000 page faults per frame of the bundled model, an eighth of its time. No effect with other C libraries.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, OWN_PAGES_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; the copy is queued behind the work that is pending there."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    # PyTorch keeps the pinned memory until the copy is done.
    return tensor.pin_memory().to(device, non_blocking=True)


def finish(device: torch.device) -> None:
    """Wait until the device has finished the work of this thread."""
    if device.type == "cuda":
        # A blocking event: the usual synchronization spins, which takes a core from other processes on the robot.
        done = torch.cuda.Event(blocking=True)
        done.record(torch.cuda.current_stream(device))
        done.synchronize()


class Download:
    """Tensors that are being copied from the device to the host, by name; other values are passed through.

    Create it in the thread that made the tensors; any thread may wait for it. On a GPU the copies run on ``stream``,
    in parallel with the model's next work.
    """

    def __init__(self, contents: Mapping[str, Any], stream: torch.cuda.Stream | None) -> None:
        self._contents = dict(contents)
        self._source: list[Tensor] = []
        self._done: torch.cuda.Event | None = None
        if stream is None:
            return
        stream.wait_stream(torch.cuda.current_stream(stream.device))
        with torch.cuda.stream(stream):
            for name, tensor in contents.items():
                if isinstance(tensor, Tensor):
                    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                    self._contents[name] = pinned.copy_(tensor, non_blocking=True)
                    # Keep it until the copy is done; otherwise the model's next tensor could reuse its memory.
                    self._source.append(tensor)
            self._done = torch.cuda.Event(blocking=True)
            self._done.record(stream)

    def wait(self) -> dict[str, Any]:
        """The contents, with all tensors on the host."""
        if self._done is not None:
            self._done.synchronize()
        self._source.clear()
        return self._contents


def to_host(*tensors: Tensor) -> list[Tensor]:
    """Tensors of one device on the host, with one synchronization for all of them."""
    device = tensors[0].device
    stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
    return list(Download({str(number): tensor for number, tensor in enumerate(tensors)}, stream).wait().values())


def copy_stream(device: torch.device) -> torch.cuda.Stream | None:
    """A stream for downloads; None on the CPU."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


class Stopwatch:
    """Seconds per stage of the work on a device; ``with stopwatch("decode"): ...`` adds to a stage.

    On a GPU this is GPU time between events, which are read in :meth:`read`. Reading the host's clock after each stage
    would need a synchronization and leave the GPU idle.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spans: dict[str, list[tuple[Any, Any]]] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = self._mark()
        yield
        self._spans.setdefault(stage, []).append((start, self._mark()))

    def read(self) -> dict[str, float]:
        """Seconds by stage, in the order of first use. Waits until the last stage has finished."""
        return {stage: sum(_seconds(*span) for span in spans) for stage, spans in self._spans.items()}

    def _mark(self) -> float | torch.cuda.Event:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True, blocking=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


def _seconds(start: Any, end: Any) -> float:
    if isinstance(end, float):
        return end - start
    end.synchronize()
    return 1e-3 * start.elapsed_time(end)
