"""A metric depth model in recordings: run now and then, where nothing was measured, the same after an interruption."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")

from lotus2_ros.bags import open_recording
from lotus2_ros.config import Config
from lotus2_ros.inference.loading import load_estimator
from lotus2_ros.inference.work import OwnProcess
from lotus2_ros.ros import offline
from lotus2_ros.ros.offline import Task
from lotus2_ros.ros.recorded_camera import RecordedCamera
from lotus2_ros.scale.metric_model import MetricModel
from test.ros.test_offline import HEIGHT, PERIOD, SCALE, SHIFT, WIDTH, depths, picture, record, run

PLAIN = {"size": {"height": HEIGHT, "width": WIDTH}, "image_mean": (0.0,) * 3, "image_std": (1.0,) * 3}
METRIC = {"scale.metric_model": "folder", "scale.metric_period": 0.3}


class Exact(torch.nn.Module):
    """A network that fits the model's disparity, and remembers how often it ran."""

    def __init__(self, estimator):
        super().__init__()
        self.config = SimpleNamespace(model_type="depth_anything")
        self.zero = torch.nn.Parameter(torch.zeros(1))
        self.disparity = lambda image: estimator.unaligned(image).disparity
        self.runs = 0

    def forward(self, pixel_values):
        self.runs += 1
        image = (255 * pixel_values[0]).round().to(torch.uint8).permute(1, 2, 0)
        return SimpleNamespace(predicted_depth=1 / (SCALE * self.disparity(image) + SHIFT)[None])


def workers_with_metric_model(bundle) -> tuple[OwnProcess, Exact]:
    estimator = load_estimator(Config().updated({"model.path": str(bundle)}))
    network = Exact(estimator)
    estimator.metric_model = MetricModel(network, PLAIN)
    return OwnProcess(estimator), network


@pytest.fixture(scope="module")
def without_depth(tmp_path_factory, random_bundle):
    return record(tmp_path_factory.mktemp("plain") / "in", 8, "none", random_bundle)


def test_a_metric_model_gives_meters_and_runs_once_a_period(tmp_path, random_bundle, without_depth):
    config = Config().updated({"model.path": str(random_bundle), **METRIC})
    workers, network = workers_with_metric_model(random_bundle)
    found = depths(run(without_depth, tmp_path / "out", workers, config))
    assert len(found) == 8 and network.runs == 3  # frames 0, 3 and 6 at 10 Hz
    for index, stamp in enumerate(sorted(found)):
        expected = 1 / (SCALE * network.disparity(torch.from_numpy(picture(index))) + SHIFT)
        np.testing.assert_allclose(found[stamp], expected.ravel(), rtol=0.05)


def test_measured_depth_comes_before_a_metric_model(tmp_path, random_bundle):
    config = Config().updated({"model.path": str(random_bundle), **METRIC})
    camera = RecordedCamera(config, print)
    frames = list(open_recording([record(tmp_path / "in", 8, "depth", random_bundle)]).frames())
    due = [camera.metric_camera(frame) is not None for frame in frames]
    assert due == [index in (1, 4, 7) for index in range(8)]  # 0, 3 and 6 have depth
    chosen = RecordedCamera(config.updated({"scale.source": "metric_model"}), print)
    assert chosen.metric_camera(frames[0]) is not None  # the depth is not to be used
    assert RecordedCamera(Config(), print).metric_camera(frames[1]) is None


def test_an_interrupted_run_asks_for_the_same_frames(tmp_path, random_bundle, without_depth, monkeypatch):
    config = Config().updated({"model.path": str(random_bundle), **METRIC})
    expected = depths(run(without_depth, tmp_path / "whole", workers_with_metric_model(random_bundle)[0], config))
    monkeypatch.setattr(offline, "CHECKPOINT_PERIOD", 0.0)
    recording = open_recording([without_depth])
    frames = recording.frames

    def interrupted():
        for frame in frames():
            if frame.stamp_ns == 6 * PERIOD:
                raise KeyboardInterrupt
            yield frame

    recording.__dict__["frames"] = interrupted
    workers, _ = workers_with_metric_model(random_bundle)
    with pytest.raises(KeyboardInterrupt):
        run(without_depth, tmp_path / "out", workers, config, Task(recording, without_depth))
    workers, network = workers_with_metric_model(random_bundle)
    found = depths(run(without_depth, tmp_path / "out", workers, config, resume=True))
    assert found.keys() == expected.keys() and network.runs == 1  # frame 6 alone
    assert all(torch.equal(found[stamp], expected[stamp]) for stamp in expected)
