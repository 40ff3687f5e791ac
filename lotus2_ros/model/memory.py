"""The free memory of a device, and one-line errors if it is too little."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from lotus2_ros.config.errors import first_line

GIGABYTE = 1e9
MEMINFO = Path("/proc/meminfo")
# Memory limit and use of this container (cgroup v2).
LIMIT, USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


class MemoryShortageError(ValueError):
    """Too little memory, on a GPU or the host."""


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be allocated on a device; None if that is not known."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu" or not MEMINFO.is_file():
        return None
    values = dict(line.split(":") for line in MEMINFO.read_text().splitlines())
    free = 1024 * int(values["MemAvailable"].split()[0])
    try:
        return min(free, int(LIMIT.read_text()) - int(USED.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return free


def require_memory(device: torch.device, needed: int, what: str) -> None:
    """Raise MemoryShortageError unless `needed` bytes can be allocated."""
    free = free_memory(device)
    if free is not None and needed > free:
        raise MemoryShortageError(
            f"expected {needed / GIGABYTE:.1f} GB of free memory on {device} for {what}, got {free / GIGABYTE:.1f} GB"
        )


@contextmanager
def memory_errors(advice: str = "") -> Iterator[None]:
    """Turn errors about memory of Python, torch and safetensors into a MemoryShortageError, followed by the advice."""
    try:
        yield
    except MemoryShortageError as error:
        raise MemoryShortageError(f"{error}{advice and f'; {advice}'}") from error
    except Exception as error:  # of many classes, see is_shortage
        if not is_shortage(error):
            raise
        raise MemoryShortageError(f"too little memory ({first_line(error)}){advice and f'; {advice}'}") from error


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory could not be allocated; those of torch and safetensors are of many classes."""
    said = str(error).lower()
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # A thread does not start where there is no memory for its stack.
    return any(words in said for words in ("allocate memory", "out of memory", "can't start new thread"))
