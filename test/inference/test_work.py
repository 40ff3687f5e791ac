"""Frames as work for others: their order, how many wait, and what happens when a worker dies."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, Future

import numpy as np
import pytest
import torch

from lotus2_ros.inference.loading import load
from lotus2_ros.inference.processes import shared_out, worthwhile
from lotus2_ros.inference.work import Prediction, Request, WorkerLostError, in_order, predict


class Fragile:
    """Predicts when it is asked for the result. It dies of the frames ``deadly``, each so many times."""

    def __init__(self, capacity, deadly):
        self.capacity, self.deadly = capacity, dict(deadly)
        self.in_progress = []
        self.restarts = 0
        self.broken = False

    def submit(self, request):
        if self.broken:
            raise BrokenExecutor
        future = Future()
        if self.deadly.get(request.index, 0):
            self.deadly[request.index] -= 1
            self.broken = True
            for other in [*self.in_progress, future]:
                other.set_exception(BrokenExecutor())
            self.in_progress = []
        else:
            self.in_progress.append(future)
            if len(self.in_progress) >= self.capacity or self.restarts:
                for each in self.in_progress:
                    each.set_result(Prediction({}, {"n": float(request.index)}))
                self.in_progress = []
        return future

    def restart(self):
        self.restarts += 1
        self.broken = False


def results(workers, requests):
    return [(each.request.index, each.future.exception()) for each in in_order(workers, requests)]


@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_a_frame_that_kills_once_is_asked_again(capacity):
    workers = Fragile(capacity, {4: 1})
    found = results(workers, (Request(index, np.zeros(1)) for index in range(6)))
    assert found == [(index, None) for index in range(6)] and workers.restarts == 1


def test_a_frame_that_kills_twice_is_given_up_and_only_that():
    workers = Fragile(3, {2: 5})
    found = results(workers, [Request(index, np.zeros(1)) for index in range(6)])
    assert [index for index, _ in found] == list(range(6))
    assert [index for index, error in found if isinstance(error, WorkerLostError)] == [2]
    assert all(error is None for index, error in found if index != 2)


def test_a_frame_without_pixels_is_not_asked_and_keeps_its_place():
    error = ValueError("no image")
    found = results(Fragile(1, {}), [Request(0, np.zeros(1)), Request(1, None, error=error), Request(2, np.zeros(1))])
    assert found == [(0, None), (1, error), (2, None)]


def test_only_as_many_frames_as_can_be_in_progress_are_read():
    read = []

    def requests():
        for index in range(21):
            read.append(index)
            yield Request(index, np.zeros(1))

    for number, _ in enumerate(in_order(Fragile(3, {}), requests())):
        assert len(read) <= number + 3


def test_a_prediction_is_what_the_model_says_without_a_scale(random_bundle):
    estimator = load(random_bundle)
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    found = predict(estimator, Request(0, pixels, is_sharpened=True))
    expected = estimator.predict(pixels)
    assert set(found.annotations) == {"disparity", "normals"}
    assert torch.equal(found.found().disparity, expected.disparity)
    assert not torch.equal(found.sharp.found().disparity, expected.disparity)
    assert torch.equal(found.sharp.found().normals, estimator.sharpen(expected).result().normals)
    assert {"encode", "core", "decode"} <= set(found.latency)


def test_read_only_arrays_as_ray_gives_them_are_copied():
    values = np.ones((2, 3), np.float32)
    values.flags.writeable = False
    Prediction({"disparity": values}, {}).found().disparity.zero_()
    assert values.all()


def test_workers_that_do_not_pay_are_not_started(random_bundle):
    config = load(random_bundle).config
    assert worthwhile(config, frames=5) == 1
    assert worthwhile(config, frames=None) >= 1
    assert shared_out(config.updated({"model.threads": 3}), 2).model.threads == 3
