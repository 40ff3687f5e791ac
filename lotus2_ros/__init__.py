"""Dense depth, normals and point clouds from one camera with Lotus-2, for ROS 2."""

from __future__ import annotations

import os
from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lotus2_ros.geometry.camera import Camera
    from lotus2_ros.inference.estimator import Estimator
    from lotus2_ros.inference.geometry import Geometry
    from lotus2_ros.inference.loading import load

__all__ = ["Camera", "Estimator", "Geometry", "load"]

# The generated messages (lotus2_ros.msg) live in the installed package: when Python starts in the source tree, this
# lets the tree and the installed messages be one package.
__path__ = extend_path(__path__, __name__)

# OpenMP threads spin for milliseconds while they wait for each other. If another program keeps one of the cores busy,
# a frame then takes forty times as long, so let them sleep after some microseconds. torch reads this when it loads
# OpenMP, so it is set before anything here imports torch.
SPINS = "1000"
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)

__version__ = "0.1.0"

# The public names and their modules. These import torch, so each is imported when its name is first used.
_MODULES = {
    "Camera": "lotus2_ros.geometry.camera",
    "Estimator": "lotus2_ros.inference.estimator",
    "Geometry": "lotus2_ros.inference.geometry",
    "load": "lotus2_ros.inference.loading",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
