"""The node with its model compiled by OpenVINO."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lotus2_ros.msg import FrameReport
from sensor_msgs.msg import Image

from lotus2_ros.config import Config
from lotus2_ros.inference.estimator import load_estimator

pytestmark = pytest.mark.ros
IMAGE = torch.randint(0, 256, (36, 52, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_node_gives_what_torch_gives(start, client, random_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = Config().updated({"model.path": str(random_bundle), "model.engine": "torch"})
    expected = load_estimator(config).predict(IMAGE).disparity
    start({"model.engine": "openvino", "model.dtype": "float32", "model.warm_up": "[52x36]"})
    client.subscribe(Image, "disparity/image")
    client.subscribe(FrameReport, "report")
    client.warm_up(IMAGE, "disparity/image")
    client.send_and_wait(IMAGE, 2)
    client.until(lambda: client.received["disparity/image"], "disparity")
    disparity = np.frombuffer(client.received["disparity/image"][0].data, np.float32).reshape(expected.shape)
    np.testing.assert_allclose(disparity, expected, atol=1e-5)
    assert list((tmp_path / "cache" / "lotus2_ros" / "openvino").iterdir())  # OpenVINO did run it
