"""The node with its model run by OpenVINO, and by ONNX Runtime from an exported folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from lotus2_ros.msg import FrameReport
from sensor_msgs.msg import Image
from torch import Tensor

from lotus2_ros.config import Config
from lotus2_ros.inference.loading import load_estimator
from lotus2_ros.model.export.export import export

pytestmark = pytest.mark.ros
WIDTH, HEIGHT = 40, 24
IMAGE = torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
MISSING = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]


@pytest.fixture
def expected(random_bundle) -> Tensor:
    """Torch's disparity."""
    given = {"model.path": str(random_bundle), "model.engine": "torch", "model.process_resolution": WIDTH}
    return load_estimator(Config().updated(given)).predict(IMAGE).disparity


def check_disparity(client, expected: Tensor, tolerance: float) -> None:
    """The running node publishes it."""
    client.subscribe(Image, "disparity/image")
    client.subscribe(FrameReport, "report")
    client.warm_up(IMAGE, "disparity/image")
    client.send_and_wait(IMAGE, 2)
    client.until(lambda: client.received["disparity/image"], "disparity")
    disparity = np.frombuffer(client.received["disparity/image"][0].data, np.float32).reshape(expected.shape)
    np.testing.assert_allclose(disparity, expected, atol=tolerance)


def test_openvino_gives_what_torch_gives(start, client, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = {"model.engine": "openvino", "model.dtype": "float32", "model.warm_up": f"[{WIDTH}x{HEIGHT}]"}
    start({**options, "model.process_resolution": WIDTH})
    check_disparity(client, expected, 1e-5)
    assert list((tmp_path / "cache" / "lotus2_ros" / "openvino").iterdir())  # OpenVINO did run it


@pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} missing: pip install 'lotus2_ros[export]'")
def test_an_exported_folder_gives_what_torch_gives(start, client, random_bundle, expected, tmp_path, monkeypatch):
    monkeypatch.setattr("lotus2_ros.model.export.export.SMALL_BYTES", 0)  # without the graph from image to disparity
    folder: Path = tmp_path / "exported"
    export(random_bundle, folder, size=(HEIGHT, WIDTH), tasks=("depth",), check=False, say=lambda line: None)
    node = start({"model.path": str(folder), "model.engine": "onnxruntime", "model.warm_up": f"[{WIDTH}x{HEIGHT}]"})
    check_disparity(client, expected, 1e-3)
    assert "ONNX Runtime runs random with its CPU provider" in node.output()
