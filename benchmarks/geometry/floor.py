"""`cloud.remove_ground`: how much of the floor of rendered views is left in the cloud, and what goes with the floor."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.geometry.figure import Figure
from benchmarks.geometry.seen import Seen, rendered
from benchmarks.geometry.steadiness import measure
from benchmarks.geometry.truth import known, prediction
from lotus2_ros.config import CloudConfig, ScaleConfig
from lotus2_ros.geometry.floor import Floor, floor_mask
from lotus2_ros.inference.loading import load
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.scale import RelativeGeometry

SCENES = {"room": 8, "corridor": 8, "warehouse": 8}
NEAR = 4.0  # meters from the camera that are looked at
FLAT, OBSTACLE = 0.02, 0.15  # meters above the true floor: up to the first it is floor, from the second on an obstacle
BUMP = 0.05  # meters that a costmap may take for an obstacle
MIN_FLOOR = 0.01  # share of an image; views with less are left out
MOUNT_ERROR = 2.0  # degrees


@dataclass(frozen=True)
class View:
    """A rendered view with the model's answer, and which pixels are floor and obstacles in truth."""

    seen: Seen
    answer: RelativeGeometry
    is_floor: Tensor  # bool (H, W)
    is_obstacle: Tensor


def figures(frames: Path | None, quick: bool) -> Iterator[Figure]:
    estimator = load(parameters={"model.threads": 1})
    views = []
    for seen in rendered(SCENES, quick):
        near = seen.valid & (seen.depth < NEAR)
        height = _height(seen, seen.depth)
        answer = prediction(estimator, seen.image, seen.camera)
        views.append(View(seen, answer, near & (height.abs() < FLAT), near & (height > OBSTACLE)))
    views = [view for view in views if quick or view.is_floor.float().mean() > MIN_FLOOR]
    for local_field in (False, True):
        for floor, name in ((_found, "found"), (_mounted, f"by a mount that is {MOUNT_ERROR:g} degrees off")):
            left, high, lost = zip(*(_removed(view, local_field, floor(view.seen)) for view in views), strict=True)
            floors = sum(int(view.is_floor.sum()) for view in views)
            case = f"{len(views)} views, {'local field' if local_field else 'line'}, floor {name}"
            obstacles = (
                f"{100 * sum(lost) / len(lost):.2g} % of the obstacles left out, at most {100 * max(lost):.2g} %"
            )
            beside = f"{100 * (1 - sum(left) / max(1, floors)):.0f} % of the floor left out; {obstacles}"
            share = 100 * sum(high) / max(1, floors)
            yield Figure("floor left, and more than 5 cm too high", case, share, "%", None, beside)


def _removed(view: View, local_field: bool, floor: Floor | None) -> tuple[int, int, float]:
    """Pixels of the floor that are left, and of them those too high; share of the obstacles' pixels left out."""
    reference = Reference(measure(known(view.seen.depth), torch.Generator().manual_seed(0)))
    scale = ScaleFilter().align(view.answer, reference, ScaleConfig(local_field=local_field))
    depth = scale.depth_of(view.answer.disparity)
    assert view.answer.normals is not None
    removed = floor_mask(depth, view.seen.camera.rays, view.answer.normals, CloudConfig().ground_height, floor)
    left = view.is_floor & ~removed
    high = left & (_height(view.seen, depth) > BUMP)
    obstacles = int(view.is_obstacle.sum())
    return int(left.sum()), int(high.sum()), int((removed & view.is_obstacle).sum()) / max(1, obstacles)


def _height(seen: Seen, depth: Tensor) -> Tensor:
    """(H, W) above the true floor, meters."""
    assert seen.up is not None
    return seen.camera.unproject(depth) @ seen.up.float() + seen.camera_height


def _found(seen: Seen) -> None:
    """The node looks for it."""


def _mounted(seen: Seen) -> Floor:
    assert seen.up is not None
    side = F.normalize(torch.linalg.cross(seen.up, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)), dim=0)
    angle = math.radians(MOUNT_ERROR)
    up = math.cos(angle) * seen.up + math.sin(angle) * torch.linalg.cross(side, seen.up)
    return Floor((-up / seen.camera_height).float())
