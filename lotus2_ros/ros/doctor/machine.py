"""Checks of the machine. They run without ROS and without the packages they look for."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from lotus2_ros.config import Config
from lotus2_ros.config.installed import share
from lotus2_ros.ros.doctor.connection import CONNECTION
from lotus2_ros.ros.doctor.findings import Checks, Finding, hint, ok, wrong

PYTHON = (3, 10), (3, 14)
# Modules of packages whose names differ from them.
MODULES = {
    "huggingface-hub": "huggingface_hub",
    "open3d-cpu": "open3d",
    "opencv-python-headless": "cv2",
    "pillow-heif": "pillow_heif",
    "pyyaml": "yaml",
}
# Modules that load libraries of the system, which may be missing.
NATIVE = ("torch", "cv2", "open3d")
ROS_MODULES = ("rclpy", "sensor_msgs.msg", "std_msgs.msg", "diagnostic_msgs.msg", "lifecycle_msgs.msg")
LARGE_MODEL = 1e9  # bytes of weights, above which a CPU takes minutes for a frame


def check_python(config: Config) -> Iterator[Finding]:
    low, high = PYTHON
    text = f"Python {platform.python_version()} in {sys.prefix}"
    if low <= sys.version_info[:2] <= high:
        yield ok(text)
    else:
        expected = f"{low[0]}.{low[1]} to {high[0]}.{high[1]}"
        yield wrong(text, expected, "create the virtual environment with another Python")


def check_packages(config: Config) -> Iterator[Finding]:
    """The packages of requirements/runtime.txt, and whether those with native libraries load."""
    from packaging.requirements import Requirement

    file = share("requirements/runtime.txt")
    mend = f"{sys.executable} -m pip install -r {file}"
    lines = [line.partition("#")[0].strip() for line in file.read_text().splitlines()]
    required = [Requirement(line) for line in lines if line]
    required = [item for item in required if item.marker is None or item.marker.evaluate()]
    count = 0
    for item in required:
        name = item.name.lower().replace("_", "-")
        try:
            version = metadata.version(item.name)
        except metadata.PackageNotFoundError:
            if _exists(MODULES.get(name, item.name)):
                yield hint(f"{item.name} is there, but pip does not know its version", str(item), mend)
            else:
                yield wrong(f"{item.name} is not installed", str(item), mend)
            continue
        if not item.specifier.contains(version, prereleases=True):
            yield wrong(f"{item.name} {version}", str(item), mend)
        count += 1
    yield ok(f"{count} of {len(required)} required packages are installed, torch {_version('torch')}")
    for module in NATIVE:
        if _exists(module) and (problem := _load(module)):
            yield wrong(f"{module} does not load: {problem}", mend=f"{mend}, or install the library that it names")


def check_ros(config: Config) -> Iterator[Finding]:
    distribution = os.environ.get("ROS_DISTRO")
    for module in ROS_MODULES:
        if problem := _load(module):
            advice = f"source /opt/ros/{distribution or 'jazzy'}/setup.bash, or pip install the wheels of "
            yield wrong(f"{module} does not load: {problem}", mend=f"{advice}requirements/ros.txt")
            return
    if problem := _load("lotus2_ros.msg"):
        advice = "colcon build --packages-select lotus2_ros && source install/setup.bash, or pip install ."
        yield wrong(f"the messages of lotus2_ros do not load: {problem}", mend=advice)
        return
    source = f"ROS 2 {distribution}" if distribution else f"wheels, rclpy {_version('ros-rclpy')}"
    yield ok(f"{source}, ROS_DOMAIN_ID {os.environ.get('ROS_DOMAIN_ID', '0')}")


def check_model(config: Config) -> Iterator[Finding]:
    """The files of the model, and the memory of the GPU against the size of its weights."""
    import torch

    from lotus2_ros.model.export.manifest import is_exported
    from lotus2_ros.model.load import model_folder, recognize, stored_bytes
    from lotus2_ros.model.weights import CheckpointError

    folder = model_folder(config.model.path)
    if is_exported(folder):
        yield _exported(folder, config.model.device)
        return
    try:
        recognize(folder)
    except CheckpointError as error:
        yield wrong(str(error), mend="lotus2 prepare --output FOLDER, then model.path:=FOLDER")
        return
    weights = stored_bytes(folder)
    text = f"{folder.name} has weights of {weights / 1e9:.2f} GB"
    if torch.cuda.is_available():
        yield _gpu_memory(text, weights, *torch.cuda.mem_get_info())
    elif config.model.device == "cuda":
        yield wrong(f"model.device is cuda, torch {torch.__version__} sees no GPU", mend="nvidia-smi, and a CUDA torch")
    elif shutil.which("nvidia-smi"):
        advice = "pip install a torch built for the driver's CUDA (https://pytorch.org/get-started)"
        yield hint(f"torch {torch.__version__} does not see this machine's GPU", mend=advice)
    elif weights > LARGE_MODEL:
        yield hint(f"{text}, and there is no GPU", "a GPU: a CPU takes minutes for a frame", "use the bundled model")
    else:
        yield ok(f"{text}; runs on the CPU")


def _exported(folder: Path, device: str) -> Finding:
    """A model that `lotus2 export` wrote, and the part of ONNX Runtime that would run it."""
    from lotus2_ros.model.engine.onnxruntime import providers_for
    from lotus2_ros.model.export.manifest import ExportManifest

    try:
        manifest = ExportManifest.of(folder)
        provider, _ = providers_for(device, manifest.precision)[0]
    except ValueError as error:  # of its files, or of ONNX Runtime
        return wrong(str(error))
    height, width = manifest.size
    return ok(f"{folder.name} is exported for images of {width}x{height}; runs with ONNX Runtime's {provider}")


def _gpu_memory(text: str, weights: int, free: int, total: int) -> Finding:
    text += f"; the GPU has {total / 1e9:.1f} GB, {free / 1e9:.1f} GB free"
    if weights > total:
        advice = "lotus2 prepare --precision float8, int8 or nf4 (docs/performance.md has their sizes)"
        return wrong(text, "memory for the weights, and activations on top", advice)
    if weights > free:
        return wrong(text, "memory for the weights, and activations on top", "nvidia-smi shows what holds the memory")
    return ok(text)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "of unknown version"


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _load(module: str) -> str:
    """Why a module cannot be imported; empty if it can."""
    try:
        importlib.import_module(module)
    except Exception as error:  # of any class, of a broken package
        return f"{type(error).__name__}: {error}"
    return ""


MACHINE: Checks[Config] = {
    "python": check_python,
    "packages": check_packages,
    "model": check_model,
    **CONNECTION,
    "ros": check_ros,
}
