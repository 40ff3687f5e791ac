"""Organized point clouds, and flying pixels at depth edges."""

from __future__ import annotations

import torch
from torch import Tensor

from lotus2_ros.geometry.camera import Camera

# Distances in pixels from a flying pixel to the surfaces in front of and behind it: networks blur an edge over several
# pixels.
REACHES = (2, 4)
# On a plane, inverse depth changes twice as much over twice the distance. Across an edge it levels off: the change over
# twice the distance is less than this many times the change over the distance.
LEVELED = 1.5


def flying_pixels(depth: Tensor, threshold: float) -> Tensor:
    """Mask of the pixels that hang between a near and a far surface (mixed pixels).

    A pixel flies if, along its row or its column, one neighbor is nearer and the opposite one is farther, both by more
    than ``threshold`` times the pixel's own inverse depth, and inverse depth levels off beyond these neighbors. On
    every plane, inverse depth is linear in the image. So a plane has no flying pixels, however steep it is, and neither
    has a floor at the horizon. +Inf (sky) and NaN count as infinitely far. Pixels close to the image border are never
    marked.

    Args:
        depth: (H, W) along z, in any unit.
        threshold: fraction of the pixel's inverse depth, > 0.

    Returns:
        Bool (H, W), true where a pixel flies.
    """
    inverse = (1 / depth).nan_to_num_(nan=0.0)
    least = inverse * (2 * threshold)
    # Positive where a pixel flies. One comparison at the end is faster than one per direction and reach.
    score = torch.zeros_like(inverse)
    for dim, size in enumerate(depth.shape):
        for reach in REACHES:
            count = max(0, size - 4 * reach)
            far_left, left, middle, right, far_right = (
                inverse.narrow(dim, min(size, n * reach), count) for n in range(5)
            )
            inner, outer = (right - left).abs_(), (far_right - far_left).abs_()
            # |a + b| - |a - b| is twice the smaller of |a| and |b| if their signs agree, and negative otherwise.
            between = (left + right).sub_(middle, alpha=2).abs_().neg_().add_(inner)
            between.sub_(least.narrow(dim, min(size, 2 * reach), count))
            leveled = inner.mul_(LEVELED).sub_(outer)
            here = score.narrow(dim, min(size, 2 * reach), count)
            torch.maximum(here, torch.minimum(between, leveled, out=between), out=here)
    return score > 0


def organized_cloud(
    depth: Tensor,
    camera: Camera,
    image: Tensor,
    normals: Tensor | None,
    *,
    stride: int,
    min_depth: float,
    max_depth: float,
    edge_threshold: float,
    sigma: Tensor | None = None,
    removed: Tensor | None = None,
) -> Tensor:
    """An organized point cloud, as the fields of a sensor_msgs/PointCloud2.

    Args:
        depth: (H, W) along z. NaN and Inf give no point.
        camera: the camera of the (H, W) image.
        image: (H, W, 3) uint8 RGB.
        normals: (H, W, 3) in the optical frame, or None.
        stride: take every n-th pixel of every n-th row.
        min_depth, max_depth: points outside these limits are removed, in the unit of ``depth``; inf: no limit.
        edge_threshold: the ``threshold`` of :func:`flying_pixels`, which are removed; 0 keeps them.
        sigma: (H, W) standard deviation of depth, or None.
        removed: (H, W) bool, true where there shall be no point, or None.

    Returns:
        float32 (H', W', C), where H' = ceil(H / stride). The channels are x, y, z in the optical frame in the unit of
        ``depth`` (NaN in all three where there is no point); rgb, whose bits are the int32 0x00RRGGBB; the three of
        ``normals`` and ``sigma`` where given, unchanged.
    """
    every = (slice(None, None, stride),) * 2
    z = depth[every]
    usable = (z >= min_depth) & (z <= min(max_depth, torch.finfo(z.dtype).max))
    if edge_threshold > 0:
        usable &= ~flying_pixels(depth, edge_threshold)[every]
    if removed is not None:
        usable &= ~removed[every]
    z = torch.where(usable, z, torch.nan)
    channels = 4 + (0 if normals is None else 3) + (sigma is not None)
    cloud = torch.empty(*z.shape, channels, device=z.device)
    rays, color = camera.rays_on(z.device)[every], image[every].int()
    for axis in range(3):
        torch.mul(rays[..., axis], z, out=cloud[..., axis])
    rgb = cloud.view(torch.int32)[..., 3]
    torch.add(color[..., 2], color[..., 1], alpha=1 << 8, out=rgb).add_(color[..., 0], alpha=1 << 16)
    if normals is not None:
        cloud[..., 4:7] = normals[every]
    if sigma is not None:
        cloud[..., -1] = sigma[every]
    return cloud
