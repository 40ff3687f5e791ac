"""Exact disparity and normals of rendered views and of recorded depth, and what a network's errors make of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.geometry.truth import camera_of, is_dense
from lotus2_ros import scenes
from lotus2_ros.evaluation.frames import read_frames
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.estimator import Estimator

WIDTH, HEIGHT = 320, 240
# Held out, and not those that the constants of the fits were chosen by.
FIRST_SEED = 700
# Pixels to either side that a normal of recorded depth is fitted to.
REACH = 3


@dataclass(frozen=True)
class Seen:
    """image, depth (meters), disparity in [0, 1], normals, all (H, W) or (H, W, 3); depth ~ 1 / (disparity + shift)."""

    name: str
    image: Tensor
    depth: Tensor
    disparity: Tensor  # 0 where not valid
    normals: Tensor
    valid: Tensor
    shift: float
    camera: Camera
    up: Tensor | None = None  # optical frame
    camera_height: float = math.nan  # meters


def rendered(counts: dict[str, int], quick: bool) -> Iterator[Seen]:
    """So many scenes of each kind."""
    for kind, count in counts.items():
        for seed in range(FIRST_SEED, FIRST_SEED + (1 if quick else count)):
            # What is measured takes K and no lens.
            view = next(view for view in scenes.views(seed, WIDTH, HEIGHT, kind) if view.camera.lens is None)
            seen = _seen(kind, view.image, view.depth, view.normals, view.camera)
            up = torch.from_numpy(view.pose.rotation()[2].copy())
            yield replace(seen, up=up, camera_height=float(view.pose.position[2]))


def recorded(frames: Path) -> Iterator[Seen]:
    """Frames with dense depth; normals from planes through the depth around each pixel."""
    for frame in read_frames(frames):
        if is_dense(frame.depth):
            camera = camera_of(frames, frame)
            normals = _normals_of_depth(frame.depth, camera)
            depth = torch.where(torch.isfinite(normals[..., 0]), frame.depth, torch.inf)
            yield _seen(frame.name, frame.image, depth, normals, camera)


def predicted(estimator: Estimator, seen: Seen) -> Seen:
    """The same view with the disparity and normals of a model that has both."""
    geometry = estimator.predict(seen.image)
    assert geometry.disparity is not None and geometry.normals is not None
    everywhere = torch.ones_like(seen.valid)
    return replace(seen, disparity=geometry.disparity, normals=geometry.normals, valid=everywhere)


def with_noise(seen: Seen, seed: int, disparity: float = 0.0, degrees: float = 0.0, patch: int = 1) -> Seen:
    """Gaussian noise: of disparity, share of its range; of normals, along either tangent, equal within about `patch`
    pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = disparity * torch.randn(seen.disparity.shape, generator=generator)
    height, width = seen.disparity.shape
    turn = torch.randn(1, 3, height // patch, width // patch, generator=generator)
    turn = F.interpolate(turn, (height, width), mode="bicubic", align_corners=False)
    turn = math.radians(degrees) * (turn / turn.std())[0].permute(1, 2, 0)
    turn = turn - (turn * seen.normals).sum(-1, keepdim=True) * seen.normals
    return replace(seen, disparity=seen.disparity + noise, normals=F.normalize(seen.normals + turn, dim=-1))


def _seen(name: str, image: Tensor, depth: Tensor, normals: Tensor, camera: Camera) -> Seen:
    valid = torch.isfinite(depth)
    near, far = float(1 / depth[valid].min()), float(1 / depth[valid].max())
    disparity = torch.where(valid, (1 / depth - far) / (near - far), 0)
    return Seen(name, image, depth, disparity, normals, valid, far / (near - far), camera)


def _normals_of_depth(depth: Tensor, camera: Camera) -> Tensor:
    """(H, W, 3): 1 / z = m.r on a plane, so m by least squares over a square of pixels; NaN where half of it is NaN."""
    inverse = (1 / depth.double()).nan_to_num()
    x, y, ones = camera.rays.double().unbind(-1)
    use = torch.isfinite(depth).double()
    products = (use, x, y, inverse, x * x, x * y, y * y, x * inverse, y * inverse)
    sums = F.avg_pool2d(use * torch.stack(products), 2 * REACH + 1, 1, REACH)
    share, (x, y, d, xx, xy, yy, xd, yd) = sums[0], sums[1:] / sums[0].clamp_min(1e-9)
    matrix = torch.stack((xx, xy, x, xy, yy, y, x, y, ones), dim=-1).unflatten(-1, (3, 3))
    enough = (share > 0.5) & (use > 0)
    matrix = torch.where(enough[..., None, None], matrix, torch.eye(3).double())
    plane = torch.linalg.solve(matrix, torch.stack((xd, yd, d), dim=-1))
    return torch.where(enough[..., None], -F.normalize(plane, dim=-1), torch.nan).float()
