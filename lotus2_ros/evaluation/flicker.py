"""How much predicted depth flickers while the camera moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lotus2_ros.geometry.camera import Camera

# A point is seen in the next frame too if the depth there is that of the point, up to this share.
VISIBLE = 0.02


@dataclass(frozen=True)
class FlickerFrame:
    """depth (H, W) predicted, truth (H, W), both metres along z; rotation (3, 3) and position (3,): camera to world."""

    depth: Tensor
    truth: Tensor
    camera: Camera
    rotation: Tensor
    position: Tensor


def flicker(frames: Sequence[FlickerFrame]) -> float:
    """Mean change of the relative error of depth from a frame to the next, at the same points of the scene.

    A point p of frame k is taken by true depth and poses to where it is seen in frame k + 1, p'; the change there is
    |ln(z'(p') / z*'(p')) - ln(z(p) / z*(p))|, with z predicted and z* true. 0: errors, if any, stand still. It is the
    temporal alignment error of Depth Any Video (arXiv 2410.10815) with the true depth for the correspondences: the
    original warps the predicted one, so that errors that stand still count as flicker when the camera moves.
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
