"""Workers as processes of this machine, one GPU each, or some of the cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any

import torch

from lotus2_ros.config import Config
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.facts import ModelFacts
from lotus2_ros.inference.loading import load_estimator
from lotus2_ros.inference.work import Prediction, Request, predict
from lotus2_ros.model.load import model_folder, stored_bytes
from lotus2_ros.model.memory import free_memory

FRAMES_PER_WORKER = 2  # one that it computes, and the next
# The start of a worker, some seconds, pays for itself from this many frames on.
MIN_FRAMES = 20
MOST_PER_CORE = 4  # workers; more of them only take memory from each other
PROCESS_BYTES = 10**9  # of Python, torch and one frame, besides the weights

_estimator: Estimator | None = None  # of a worker process


class Processes:
    """`count` processes with the model of ``config``. Raises ValueError if it cannot be loaded there."""

    def __init__(self, config: Config, count: int) -> None:
        if count > (most := MOST_PER_CORE * cores()):
            raise ValueError(f"expected at most {most} workers on {cores()} cores, got {count}")
        self.capacity = FRAMES_PER_WORKER * count
        self._count = count
        self._config = shared_out(config, count)
        self._start()
        self.facts = self._executor.submit(_facts).result()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        numbers = context.Value("i", 0)
        self._executor = ProcessPoolExecutor(self._count, context, _enter, (numbers,))
        # A model that cannot be loaded is an error of the first task, not of the initializer, which would lose it.
        self._loads = [self._executor.submit(_load, self._config) for _ in range(self._count)]
        for load in self._loads:
            load.result()

    def submit(self, request: Request) -> Future[Prediction]:
        return self._executor.submit(_predict, self._config, request)

    def restart(self) -> None:
        self.close()
        self._start()

    def close(self) -> None:
        processes = list((self._executor._processes or {}).values())
        self._executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            with suppress(OSError, ValueError):
                process.terminate()


def shared_out(config: Config, count: int) -> Config:
    """The configuration of each of ``count`` workers: on a CPU it has its share of the cores."""
    if config.model.threads or torch.cuda.is_available():
        return config
    return config.updated({"model.threads": max(1, cores() // count)})


def worthwhile(config: Config, frames: int | None) -> int:
    """How many workers pay: one for each GPU; on a CPU one for each core, as far as memory and frames go."""
    if torch.cuda.is_available() and config.model.device != "cpu":
        return torch.cuda.device_count()
    weights = stored_bytes(model_folder(config.model.path))
    memory = free_memory(torch.device("cpu"))
    fit = cores() if memory is None else memory // (PROCESS_BYTES + 2 * weights)
    enough = cores() if frames is None else frames // MIN_FRAMES
    return max(1, min(cores(), fit, enough))


def cores() -> int:
    return len(os.sched_getaffinity(0))


# In a worker process


def _enter(numbers: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the driver ends the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with numbers.get_lock():
        number, numbers.value = numbers.value, numbers.value + 1
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(each) for each in range(torch.cuda.device_count())]
    if devices:  # before this process first uses CUDA
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]


def _end_with_parent() -> None:
    """A driver that is killed cannot end its workers."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _load(config: Config) -> None:
    global _estimator
    if _estimator is None:
        _estimator = load_estimator(config)


def _loaded(config: Config) -> Estimator:
    _load(config)
    assert _estimator is not None
    return _estimator


def _facts() -> ModelFacts:
    assert _estimator is not None
    return ModelFacts.of(_estimator)


def _predict(config: Config, request: Request) -> Prediction:
    return predict(_loaded(config), request)
