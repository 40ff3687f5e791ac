"""Flicker of predicted depth while the camera moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lotus2_ros.geometry.camera import Camera

# A point is visible in the next frame if the depth there differs from its own by less than this share.
VISIBLE = 0.02


@dataclass(frozen=True)
class FlickerFrame:
    """Predicted depth (H, W) and truth (H, W), meters along z; pose of the camera in the world.

    rotation (3, 3) and position (3,) take camera coordinates to world coordinates.
    """

    depth: Tensor
    truth: Tensor
    camera: Camera
    rotation: Tensor
    position: Tensor


def flicker(frames: Sequence[FlickerFrame]) -> float:
    """Mean change of the relative depth error from one frame to the next, at the same points of the scene.

    True depth and poses take a pixel p of frame k to the pixel p' of frame k + 1 that sees the same point. The change
    is |ln(z'(p') / z*'(p')) - ln(z(p) / z*(p))|, with z predicted and z* true; 0 if errors do not change. This is the
    temporal alignment error of Depth Any Video (arXiv 2410.10815) with correspondences from true depth. The original
    warps with predicted depth, so that constant errors count as flicker when the camera moves.
    """
    return float(torch.stack([_change(now, after) for now, after in pairwise(frames)]).mean())


def _change(now: FlickerFrame, after: FlickerFrame) -> Tensor:
    points = now.camera.unproject(now.truth).double()
    moved = (points @ now.rotation.T + now.position - after.position) @ after.rotation
    pixels, depth = after.camera.project(moved)
    height, width = after.truth.shape
    column, row = pixels.round().nan_to_num(-1).long().unbind(-1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row, depth = column[inside], row[inside], depth[inside]
    visible = (after.truth[row, column] / depth - 1).abs() < VISIBLE
    error = (now.depth / now.truth).double().log()[inside]
    error_after = (after.depth / after.truth).double().log()[row, column]
    return (error_after - error)[visible].abs().mean()
