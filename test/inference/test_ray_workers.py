"""Workers on a Ray cluster of this machine: predictions as in this process, also after one of them was killed."""

from __future__ import annotations

import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from lotus2_ros.config import Config
from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.inference.loading import load
from lotus2_ros.inference.ray_workers import RayWorkers
from lotus2_ros.inference.work import Request, in_order, predict


def test_without_ray_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'lotus2_ros\[ray\]'"):
        RayWorkers(Config(), "auto", 0)


def test_an_address_where_nobody_listens_is_an_error_at_once():
    pytest.importorskip("ray", reason="ray is missing: pip install 'lotus2_ros[ray]'")
    with socket.socket() as taken:  # bound, not listening
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ValueError, match=r"no Ray cluster at '127\.0\.0\.1:.*refused"):
            RayWorkers(Config(), f"127.0.0.1:{taken.getsockname()[1]}", 0)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Ray, whose clusters keep their files in a folder that goes with them. No process of theirs may be left."""
    monkeypatch.setenv("RAY_worker_niceness", "0")  # Ray's own is 15, which a busy machine starves
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # tmp_path is too long for a socket's name
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield pytest.importorskip("ray", reason="ray is missing: pip install 'lotus2_ros[ray]'")
        end = time.monotonic() + allowed(20)
        while left := started_with(folder):
            assert time.monotonic() < end, left
            time.sleep(0.1)


def started_with(text: str) -> list[str]:
    """Command lines of the programs that have ``text`` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it has ended, or is not ours
            continue
    return found


def test_two_actors_answer_in_order_and_one_may_be_killed(random_bundle, ray):
    config = Config().updated({"model.path": str(random_bundle), "model.device": "cpu"})
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(8)]
    pictures[5] = pictures[5][:1, :1]  # too small for the model
    workers = RayWorkers(config, "local", 2)
    assert workers.capacity == 4 and workers.facts.name == "random"

    def requests():
        for index, picture in enumerate(pictures):
            if index == 6:
                ray.kill(workers._actors[0], no_restart=False)
            yield Request(index, picture)

    try:
        completed = list(in_order(workers, requests()))
    finally:
        workers.close()
    assert [each.request.index for each in completed] == list(range(8))
    estimator = load(random_bundle, device="cpu")
    for index, each in enumerate(completed):
        if index == 5:
            assert isinstance(each.future.exception(), ValueError)
        else:
            expected = predict(estimator, Request(index, pictures[index])).found().disparity
            torch.testing.assert_close(each.future.result().found().disparity, expected, rtol=1e-6, atol=1e-6)
