"""How long things take, and tables of it."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

WARM_UP = 3


def median_ms(run: Callable[[], object], device: torch.device, seconds: float, most: int = 50) -> float:
    """Median time of `run`, device time on a GPU; as many runs as fit into `seconds`, 5 at least."""
    for _ in range(WARM_UP):
        run()
    once = _once(run, device)
    runs = max(5, min(most, int(1e3 * seconds / max(once, 1e-3))))
    return statistics.median(_once(run, device) for _ in range(runs))


def interleaved_ms(
    runs: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median times of several things run in turn on the CPU, so that whatever else the machine does hits all alike.

    clock: in seconds; `time.process_time` counts the time of all threads of this process and no other.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(WARM_UP + rounds):
        for name, run in runs.items():
            start = clock()
            run()
            if number >= WARM_UP:
                times[name].append(1e3 * (clock() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is at least as large as `share` of them."""
    return float(np.quantile(values, share, method="inverted_cdf"))


def machine(device: torch.device) -> str:
    """What a table was measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return f"{name}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; numbers with two decimals below 10 and one above, nothing for None."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(map(_cell, row)) + " |" for row in rows])


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
    return str(value)


def _once(run: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - start)
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    first.record()
    run()
    last.record()
    last.synchronize()
    return first.elapsed_time(last)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
