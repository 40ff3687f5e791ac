"""Workers on a Ray cluster, one GPU each, or one CPU. lotus2_ros and the model's folder have to be on every machine."""

from __future__ import annotations

import logging
import socket
from concurrent.futures import BrokenExecutor, Future
from itertools import cycle
from typing import Any

from lotus2_ros.config import Config
from lotus2_ros.config.errors import first_line
from lotus2_ros.inference.facts import ModelFacts
from lotus2_ros.inference.processes import FRAMES_PER_WORKER
from lotus2_ros.inference.work import Prediction, Request, predict

RAY_MISSING = "ray is not installed; to use a cluster: python -m pip install 'lotus2_ros[ray]'"


class RayWorkers:
    """``count`` actors on the cluster at ``address``; 0: one for each of its GPUs, or CPUs if it has none.

    ``auto`` is the cluster that runs on this machine, ``local`` one of its own that ends with it. Raises ValueError if
    ray is missing or the cluster cannot be reached.
    """

    def __init__(self, config: Config, address: str, count: int) -> None:
        try:
            import ray
        except ImportError:
            raise ValueError(RAY_MISSING) from None
        self._ray = ray
        self._config = config
        try:
            check_listening(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options_of(address))
        except Exception as error:  # Ray raises a plain one if the cluster does not start in time
            raise ValueError(
                f"no Ray cluster at {address!r}: {first_line(error)}; `ray start --head` starts one"
            ) from None
        resources = ray.cluster_resources()
        gpus = 0 if config.model.device == "cpu" else int(resources.get("GPU", 0))
        count = count or gpus or max(1, int(resources.get("CPU", 1)))
        options = {"num_gpus": 1} if gpus else {"num_cpus": 1}
        if not gpus and not config.model.threads:
            config = config.updated({"model.threads": 1})
        actor: Any = ray.remote(_Actor)
        # An actor whose process or machine dies starts again, elsewhere if need be, and gets its requests again.
        actor = actor.options(max_restarts=-1, max_task_retries=1, **options)
        self._actors = [actor.remote(config) for _ in range(count)]
        self._turn = cycle(self._actors)
        self.capacity = FRAMES_PER_WORKER * count
        self.facts: ModelFacts = ray.get([each.facts.remote() for each in self._actors])[0]

    def submit(self, request: Request) -> Future[Prediction]:
        return _RayFuture(self._ray, next(self._turn).predict.remote(request))

    def restart(self) -> None:
        """Ray starts actors again by itself."""

    def close(self) -> None:
        self._ray.shutdown()


def check_listening(address: str) -> None:
    """Raises OSError if nobody listens at HOST:PORT, where Ray itself would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def options_of(address: str) -> dict[str, Any]:
    return {"include_dashboard": False} if address == "local" else {}


class _RayFuture(Future):
    """An object of the cluster as a future, fetched when it is asked for."""

    def __init__(self, ray: Any, reference: Any) -> None:
        super().__init__()
        self._ray = ray
        self._reference = reference

    def done(self) -> bool:
        return super().done() or bool(self._ray.wait([self._reference], timeout=0)[0])

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not super().done():
            try:
                self.set_result(self._ray.get(self._reference, timeout=timeout))
            except self._ray.exceptions.RayTaskError as error:
                self.set_exception(error.cause)
            except self._ray.exceptions.RayError as error:
                self.set_exception(BrokenExecutor(first_line(error)))
            self._reference = None
        return super().exception(timeout)

    def result(self, timeout: float | None = None) -> Prediction:
        self.exception(timeout)
        return super().result(timeout)


class _Actor:
    def __init__(self, config: Config) -> None:
        from lotus2_ros.inference.loading import load_estimator

        self._estimator = load_estimator(config)

    def facts(self) -> ModelFacts:
        return ModelFacts.of(self._estimator)

    def predict(self, request: Request) -> Prediction:
        return predict(self._estimator, request)
