"""The cloud of one geometry, by the parameters of clouds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lotus2_ros.config import CloudConfig
from lotus2_ros.geometry.cloud import organized_cloud
from lotus2_ros.geometry.floor import Floor, floor_mask
from lotus2_ros.inference.geometry import Geometry


def cloud_of(
    geometry: Geometry, config: CloudConfig, *, with_floor: bool = True, floor: Floor | None = None
) -> Tensor | None:
    """The channels (H', W', C) of :func:`organized_cloud`; None without depth or a camera.

    Unless ``with_floor``, the floor is left out: ``floor`` if that is known, else the one that is found in the depth.
    """
    depth = geometry.depth
    if depth is None or geometry.camera is None:
        return None
    sigma = geometry.sigma if config.needs_sigma else None
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
        removed=_removed(geometry, depth, sigma, config, with_floor, floor),
    )


def _removed(
    geometry: Geometry,
    depth: Tensor,
    sigma: Tensor | None,
    config: CloudConfig,
    with_floor: bool,
    floor: Floor | None,
) -> Tensor | None:
    """Bool (H, W), true where depth is too uncertain or belongs to the floor; None: nowhere."""
    masks = []
    if sigma is not None and config.max_sigma > 0:
        masks.append(sigma > config.max_sigma * depth)
    if not with_floor and geometry.normals is not None and geometry.camera is not None:
        rays = geometry.camera.rays_on(depth.device)
        masks.append(floor_mask(depth, rays, geometry.normals, config.ground_height, floor))
    return torch.stack(masks).any(0) if masks else None
