"""What workers cost and gain in `lotus2 bag`: python -m benchmarks.recordings [--frames 44] [--workers 2] [--ray local]

A recording of a rendered room goes through the model in this process, then through worker processes; with --ray through
actors of a Ray cluster, whose own processes are not counted. Each is run at two
lengths, whose difference has no start-up in it. Printed and written to recordings.md and recordings.json: seconds per
frame, CPU time of the driver and of the workers, the overhead of distribution, and the speed-up, which means something
on an idle machine only. The largest speed-up that the CPU times allow holds on a busy one too. About a minute.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.aims import Aim, conclude
from benchmarks.programs import cpu_seconds
from benchmarks.timing import machine
from lotus2_ros.bags import ResumableBag, open_recording
from lotus2_ros.config import Config
from lotus2_ros.demo.scene import write_scene_bag
from lotus2_ros.inference.loading import load_estimator
from lotus2_ros.inference.processes import Processes
from lotus2_ros.inference.ray_workers import RayWorkers
from lotus2_ros.inference.work import OwnProcess, Workers
from lotus2_ros.model.engine.device import use_threads
from lotus2_ros.ros.offline import Task, process_recording

FEW = 4  # frames of the short run
HEADER = "ms per frame", "driver, CPU", "workers, CPU", "total, CPU", "wall"


@dataclass
class Cost:
    """Seconds per frame."""

    driver: float  # CPU
    workers: float  # CPU
    wall: float

    @property
    def total(self) -> float:
        return self.driver + self.workers


def spent(workers: Workers) -> tuple[float, float, float]:
    if isinstance(workers, RayWorkers):
        asked = [actor.__ray_call__.remote(lambda _: time.process_time()) for actor in workers._actors]
        elsewhere = workers._ray.get(asked)
    else:
        executor = getattr(workers, "_executor", None)
        elsewhere = map(cpu_seconds, list(executor._processes) if executor else [])
    return time.process_time(), sum(elsewhere), time.monotonic()


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
    parser.add_argument("--frames", type=int, default=44)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ray", metavar="ADDRESS|auto|local", help="a Ray cluster in place of processes")
    parser.add_argument("--output", type=Path, default=Path("out/recordings"), help="recordings.md and recordings.json")
    args = parser.parse_args()
    config = Config().updated({"model.threads": 1})
    use_threads(1)
    places: dict[str, Callable[[], Workers]] = {"one process": lambda: OwnProcess(load_estimator(config))}
    if args.ray:
        places[f"{args.workers} actors of Ray"] = lambda: RayWorkers(config, args.ray, args.workers)
    else:
        places[f"{args.workers} workers"] = lambda: Processes(config, args.workers)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scene_bag(folder / "in.mcap", args.frames)
        costs = {}
        for label, open_workers in places.items():
            workers = open_workers()
            costs[label] = measure(workers, folder / "in.mcap", folder, args.frames, config)
            workers.close()
    one, many = costs.values()
    bound = one.total / max(many.driver, many.total / args.workers)
    aims = [
        Aim("speed-up", 0.85 * args.workers, one.wall / many.wall, least=True),
        Aim("largest speed-up by CPU time", 0.85 * args.workers, bound, least=True),
        Aim("overhead of distribution, of one process", 0.1, many.total / one.total - 1),
    ]
    device, load = machine(torch.device("cpu")), os.getloadavg()[0]
    title = f"{device}, load average {load:.1f}, bundled model, {args.frames - FEW} frames, one thread each"
    rows = [(label, 1e3 * cost.driver, 1e3 * cost.workers, 1e3 * cost.total, 1e3 * cost.wall)
            for label, cost in costs.items()]  # fmt: skip
    conclude("recordings", title, HEADER, rows, aims, args.output)


if __name__ == "__main__":
    main()
