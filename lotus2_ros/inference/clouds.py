"""The cloud of one geometry, by the parameters of clouds."""

from __future__ import annotations

import math

from torch import Tensor

from lotus2_ros.config import CloudConfig
from lotus2_ros.geometry.cloud import organized_cloud
from lotus2_ros.inference.geometry import Geometry


def cloud_of(geometry: Geometry, config: CloudConfig) -> Tensor | None:
    """The channels (H', W', C) of :func:`organized_cloud`; None without depth or a camera."""
    depth = geometry.depth
    if depth is None or geometry.camera is None:
        return None
    sigma = geometry.sigma if config.needs_sigma else None
    removed = sigma > config.max_sigma * depth if sigma is not None and config.max_sigma > 0 else None
    return organized_cloud(
        depth,
        geometry.camera,
        geometry.image,
        geometry.normals if config.normals else None,
        stride=config.stride,
        min_depth=config.min_depth,
        max_depth=config.max_depth or math.inf,
        edge_threshold=config.edge_threshold,
        sigma=sigma if config.has_sigma else None,
        removed=removed,
    )
