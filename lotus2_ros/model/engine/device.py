"""Copies and times between the host and the device of a model, neither of which waits for the other without need.

On the CPU there is nothing to copy and nothing to wait for.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

# glibc's malloc.h: when freed memory at the end of the heap goes back, and how large a block has pages of its own.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 128 << 20
OWN_PAGES_BYTES = 32 << 20  # the largest that glibc takes

ALL_THREADS = torch.get_num_threads()  # torch's own choice, before anyone made another


def use_threads(count: int) -> None:
    """Have the calling thread's torch work done by so many CPU threads; 0: by as many as torch takes by itself.

    A thread that never asks for more than one has no team of workers. Where two threads have teams that together are
    more than the cores, OpenMP lets both go to sleep after each operation, and the model takes twice as long.
    """
    torch.set_num_threads(count or ALL_THREADS)


def keep_freed_memory() -> None:
    """Have the process keep up to ``KEPT_BYTES`` that it freed, for what it asks for next.

    By itself glibc soon gives a frame's memory back to the system, which clears and maps every page anew for the next
    frame: 5000 page faults for each of the bundled model's, an eighth of its time. Other C libraries stay as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, OWN_PAGES_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device, where its copy is queued behind whatever is still to be done there."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    # PyTorch keeps the pinned memory until the copy is done.
    return tensor.pin_memory().to(device, non_blocking=True)


def finish(device: torch.device) -> None:
    """Wait until the device has done all that this thread asked of it."""
    if device.type == "cuda":
        # An event that blocks: the usual synchronisation spins, on a core that others on a robot have a use for.
        done = torch.cuda.Event(blocking=True)
        done.record(torch.cuda.current_stream(device))
        done.synchronize()


class Download:
    """Tensors, by name, on their way from the device to the host; whatever else is among them stays as it is.

    Made in the thread that made the tensors, waited for in any. On a GPU the copies run on ``stream``, beside what the
    model is asked for next.
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
                    # Freed before the copy is done, its memory would go to the model's next tensor.
                    self._source.append(tensor)
            self._done = torch.cuda.Event(blocking=True)
            self._done.record(stream)

    def wait(self) -> dict[str, Any]:
        """The contents, with all tensors on the host."""
        if self._done is not None:
            self._done.synchronize()
        self._source.clear()
        return self._contents


def copy_stream(device: torch.device) -> torch.cuda.Stream | None:
    """A stream for downloads; None where there is nothing to copy."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


class Stopwatch:
    """Seconds per stage of the work on a device; ``with stopwatch("decode"): ...`` adds to a stage.

    On a GPU it is the GPU's time, between events that are read only in :meth:`read`: to look at the host's clock after
    each stage would take a wait for the GPU, and leave it idle while the next is prepared.
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
        """Seconds by stage, in the order of their first use. Waits until the last of them is over."""
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
