"""What workers cost and gain in `lotus2 bag`, by CPU time, which a busy machine changes less than wall time.

    python -m benchmarks.recordings [--frames 24] [--workers 2]

A recording of a rendered room goes through the model in this process, then through worker processes. Each is run at two
lengths, whose difference has no start-up in it. Printed, in CPU seconds per frame: the driver's, the workers', and what
follows from them: the overhead of distribution, and the largest speed-up on as many idle cores as there are workers.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lotus2_ros.bags import ResumableBag, open_recording
from lotus2_ros.config import Config
from lotus2_ros.demo.scene import write_scene_bag
from lotus2_ros.inference.estimator import load_estimator
from lotus2_ros.inference.processes import Processes
from lotus2_ros.inference.work import OwnProcess, Workers
from lotus2_ros.model.engine.device import use_threads
from lotus2_ros.ros.offline import Task, process_recording

FEW = 4  # frames of the short run


@dataclass
class Cost:
    """Seconds per frame."""

    driver: float  # CPU
    workers: float  # CPU
    wall: float

    @property
    def total(self) -> float:
        return self.driver + self.workers


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def spent(workers: Workers) -> tuple[float, float, float]:
    executor = getattr(workers, "_executor", None)
    pids = list(executor._processes) if executor else []
    return time.process_time(), sum(map(cpu_of, pids)), time.monotonic()


def measure(workers: Workers, source: Path, folder: Path, frames: int, config: Config) -> Cost:
    marks = []
    for limit in (FEW, frames):
        before = spent(workers)
        bag = ResumableBag(folder / "out.mcap", "bag", {}, [source], overwrite=True, say=lambda line: None)
        with bag:
            process_recording(workers, Task(open_recording([source], limit=limit), source), bag, config)
        marks.append([after - start for after, start in zip(spent(workers), before, strict=True)])
    few, many = marks
    return Cost(*((m - f) / (frames - FEW) for m, f in zip(many, few, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    config = Config().updated({"model.threads": 1})
    use_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scene_bag(folder / "in.mcap", args.frames)
        costs = {}
        for label in ("one process", f"{args.workers} workers"):
            workers = OwnProcess(load_estimator(config)) if label == "one process" else Processes(config, args.workers)
            costs[label] = measure(workers, folder / "in.mcap", folder, args.frames, config)
            workers.close()
    print(f"load average {os.getloadavg()[0]:.1f}, {args.frames - FEW} frames\n")
    print("| | driver, CPU s | workers, CPU s | total | wall, s |\n|---|---|---|---|---|")
    for label, cost in costs.items():
        print(f"| {label} | {cost.driver:.3f} | {cost.workers:.3f} | {cost.total:.3f} | {cost.wall:.3f} |")
    one, many = costs.values()
    bound = one.total / max(many.driver, many.total / args.workers)
    print(f"\noverhead of distribution: {100 * (many.total / one.total - 1):.1f} % of one process")
    print(f"largest speed-up on {args.workers} idle cores: {bound:.2f}")


if __name__ == "__main__":
    main()
