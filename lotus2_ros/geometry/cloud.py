"""Organized clouds, and which pixels of a depth are no points."""

from __future__ import annotations

import torch
from torch import Tensor

from lotus2_ros.config import CloudConfig
from lotus2_ros.geometry.camera import Camera

# Pixels from one that flies to the surfaces before and behind it: networks blur an edge over several.
REACHES = (2, 4)
# On a plane inverse depth goes on as it does, so twice the way is twice the change; across an edge it levels off.
LEVELLED = 1.5


def flying_pixels(depth: Tensor, threshold: float) -> Tensor:
    """Bool mask (H, W) of the pixels of a depth (H, W) that hang between a near and a far surface.

    That is, in a row or a column: on one side depth is less, on the other more, in inverse depth by more than the
    share ``threshold`` of the pixel's, and beyond these two neighbours it changes little. Inverse depth is linear in
    the image on every plane, so no plane has such a pixel however steep it is, not even a floor at the horizon. +Inf
    (sky) and NaN are taken as infinitely far. Pixels within two reaches of the image's border are not looked at.
    """
    inverse = (1 / depth).nan_to_num_(nan=0.0)
    least = inverse * (2 * threshold)
    # Above 0 where a pixel flies: one comparison at the end is faster than one for each way to look at it.
    score = torch.zeros_like(inverse)
    for dim, size in enumerate(depth.shape):
        for reach in REACHES:
            count = max(0, size - 4 * reach)
            far_left, left, middle, right, far_right = (
                inverse.narrow(dim, min(size, n * reach), count) for n in range(5)
            )
            inner, outer = (right - left).abs_(), (far_right - far_left).abs_()
            # |a + b| - |a - b| is twice the smaller of |a| and |b| where their signs agree, negative where they differ.
            between = (left + right).sub_(middle, alpha=2).abs_().neg_().add_(inner)
            between.sub_(least.narrow(dim, min(size, 2 * reach), count))
            levelled = inner.mul_(LEVELLED).sub_(outer)
            here = score.narrow(dim, min(size, 2 * reach), count)
            torch.maximum(here, torch.minimum(between, levelled, out=between), out=here)
    return score > 0


def organized_cloud(
    depth: Tensor, camera: Camera, image: Tensor, normals: Tensor | None, config: CloudConfig
) -> Tensor:
    """Rows of an organized cloud, (H', W', 4) or with normals (H', W', 7) float32, H' = H / stride rounded up.

    x, y, z in the optical frame and in the unit of ``depth`` (H, W), all NaN where it is not finite, out of the limits
    or flying; rgb, the bytes 0, R, G, B of an int32 in a float's place, of an image (H, W, 3) uint8; and normals
    (H, W, 3) as they are.
    """
    every = (slice(None, None, config.stride),) * 2
    z = depth[every]
    usable = (z >= config.min_depth) & (z <= (config.max_depth or torch.finfo(z.dtype).max))
    if config.edge_threshold > 0:
        usable &= ~flying_pixels(depth, config.edge_threshold)[every]
    z = torch.where(usable, z, torch.nan)
    cloud = torch.empty(*z.shape, 4 if normals is None else 7, device=z.device)
    rays, channels = camera.rays.to(z.device)[every], image[every].int()
    for axis in range(3):
        torch.mul(rays[..., axis], z, out=cloud[..., axis])
    rgb = cloud.view(torch.int32)[..., 3]
    torch.add(channels[..., 2], channels[..., 1], alpha=1 << 8, out=rgb).add_(channels[..., 0], alpha=1 << 16)
    if normals is not None:
        cloud[..., 4:] = normals[every]
    return cloud
