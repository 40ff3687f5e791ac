"""Opens the workers for a recording: this process, several processes, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lotus2_ros.config import Config
from lotus2_ros.inference.loading import load_estimator
from lotus2_ros.inference.processes import FRAMES_PER_WORKER, Processes, worthwhile
from lotus2_ros.inference.ray_workers import RayWorkers
from lotus2_ros.inference.work import OwnProcess, Workers
from lotus2_ros.model.engine.device import use_threads


@contextmanager
def open_workers(config: Config, *, count: int | None, ray: str | None, frames: int | None) -> Iterator[Workers]:
    """Workers with the model of ``config`` loaded. They are closed with the block.

    Args:
        count: how many; None: one, on a cluster all there are; 0: as many as pay for their start over ``frames``.
        ray: address of a Ray cluster; None: processes of this machine.
        frames: number of frames to process; None: not known.

    Raises ValueError if the model cannot be loaded or the cluster cannot be reached.
    """
    workers: Workers
    processes = (worthwhile(config, frames) if count == 0 else count) or 1
    if ray:
        workers = RayWorkers(config, ray, count or 0)
    elif processes > 1:
        workers = Processes(config, processes)
    else:
        workers = OwnProcess(load_estimator(config))
    if workers.capacity > 1:
        print(f"workers: {workers.capacity // FRAMES_PER_WORKER} on {workers.facts.device}", flush=True)
        use_threads(1)  # the cores are the workers'
    try:
        yield workers
    finally:
        workers.close()
