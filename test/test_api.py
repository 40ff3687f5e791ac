"""The public Python API: what the README shows, and what an import costs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import lotus2_ros
from lotus2_ros.demo.deadlines import allowed

ROOT = Path(__file__).parents[1]
HEIGHT, WIDTH = 480, 640  # as the README says


def snippets() -> list[str]:
    """The README's Python examples of the package."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    return [block for block in blocks if "import lotus2_ros" in block]


def test_the_readme_shows_the_api() -> None:
    assert any("lotus2_ros.load(" in snippet and ".predict(" in snippet for snippet in snippets())


def test_the_readmes_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with a photo, with the names that they leave to the reader: an image, its K and a measured depth."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), (WIDTH, HEIGHT))
    depth = np.full((HEIGHT, WIDTH), np.nan, np.float32)
    depth[::8, ::8] = rng.uniform(1, 5, depth[::8, ::8].shape)
    names = {"image": image, "K": [[600.0, 0, 319.5], [0, 600.0, 239.5], [0, 0, 1]], "depth": depth}
    cv2.imwrite(str(tmp_path / "photo.jpg"), image)
    monkeypatch.chdir(tmp_path)
    for snippet in snippets():
        exec(compile(snippet, "README.md", "exec"), names)
    geometry = names["geometry"]
    assert geometry.disparity.shape == (HEIGHT, WIDTH) and geometry.normals.shape == (HEIGHT, WIDTH, 3)
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert written >= {"disparity.npy", "normals.npy", "preview.png", "points.ply"}


def test_importing_the_package_imports_neither_torch_nor_ros() -> None:
    code = (
        "import lotus2_ros, sys\n"
        "assert {'load', 'Estimator', 'Camera', 'Geometry'} <= set(dir(lotus2_ros))\n"
        "assert not {'torch', 'rclpy', 'numpy', 'cv2'} & set(sys.modules), sorted(sys.modules)\n"
        "lotus2_ros.Camera\n"
        "assert 'torch' in sys.modules and 'rclpy' not in sys.modules\n"
        "lotus2_ros.load, lotus2_ros.Geometry, lotus2_ros.Estimator\n"
        "assert not {'rclpy', 'matplotlib', 'open3d'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=allowed(120))
    assert result.returncode == 0, result.stderr


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'lotus2_ros' has no attribute 'predict'"):
        lotus2_ros.predict  # noqa: B018


def test_the_package_is_typed() -> None:
    assert (ROOT / "lotus2_ros" / "py.typed").is_file()
    assert '"py.typed"' in (ROOT / "pyproject.toml").read_text()  # what setuptools takes along


def test_load_takes_a_bundle_and_the_nodes_parameters(random_bundle: Path) -> None:
    estimator = lotus2_ros.load(
        random_bundle, device="cpu", tasks=["depth"], process_resolution=48, parameters={"model.mirror": True}
    )
    geometry = estimator.predict(np.zeros((40, 60, 3), np.uint8))
    assert estimator.process_resolution == 48 and estimator.model.name == "random"
    assert geometry.normals is None and isinstance(geometry.uncertainty, torch.Tensor)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "nowhere"}, "nowhere: no such folder"),
        ({"device": "tpu"}, "model.device: expected one of auto, cpu, cuda, openvino:DEVICE, got 'tpu'"),
        ({"tasks": "depth"}, "model.tasks: expected a list of strings, got 'depth'"),
        ({"parameters": {"model.color": 1}}, "unknown parameter model.color"),
    ],
)
def test_load_says_what_is_wrong(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        lotus2_ros.load(**arguments)


def test_inference_imports_nothing_that_only_training_needs() -> None:
    """They take three CPU seconds, which every start of a node would pay."""
    code = (
        "import lotus2_ros, lotus2_ros.ros.perception, sys\n"
        "import torch\n"
        "estimator = lotus2_ros.load(device='cpu', process_resolution=64)\n"
        "estimator.predict(torch.zeros(48, 64, 3, dtype=torch.uint8)).disparity\n"
        "slow = {'diffusers', 'peft', 'transformers', 'accelerate', 'torch._dynamo', 'open3d', 'scipy'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=allowed(120))
    assert result.returncode == 0, result.stderr
