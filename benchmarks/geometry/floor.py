"""`cloud.remove_ground`: floor that rendered views leave in the cloud, too high, and obstacles that go with it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.geometry.figure import Figure
from benchmarks.geometry.seen import Seen, rendered
from benchmarks.geometry.steadiness import POINTS, measure
from benchmarks.geometry.truth import known
from lotus2_ros.config import CloudConfig, ScaleConfig
from lotus2_ros.geometry.floor import Floor
from lotus2_ros.inference.clouds import cloud_of
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.inference.loading import load
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.scale import RelativeGeometry

SCENES = {"room": 8, "corridor": 8, "warehouse": 8}
NEAR = 3.0  # meters from the camera that are looked at
FLAT, OBSTACLE = 0.02, 0.15  # meters above the true floor: up to the first it is floor, from the second on an obstacle
BUMP = 0.05  # meters that a costmap may take for an obstacle
CELL, APART = 0.05, 0.15  # meters: of a costmap; what is farther from all obstacles is not their blurred edge
MIN_SHARE = 0.01  # of an image; views with less floor or fewer obstacles tell no share of them
MOUNT_ERRORS = (-2.0, 2.0)  # degrees
ALL, NAV2 = CloudConfig(edge_threshold=0.0), CloudConfig(max_sigma=0.2)  # the latter as config/nav2_perception.yaml


@dataclass(frozen=True)
class View:
    """A rendered view with the model's answer, and which pixels are floor and obstacles in truth."""

    seen: Seen
    answer: Geometry
    is_floor: Tensor  # bool (H, W)
    is_obstacle: Tensor
    obstacles: Tensor  # (N, 3) seen from above, cells of the obstacles
    around: Tensor  # (N, 3) the same, of all that stands on the floor, a little farther too


@dataclass(frozen=True)
class Counts:
    """Pixels of one view."""

    floor: int
    left: int  # of the floor, in the cloud
    high: int  # of these, more than BUMP above it
    apart: int  # of these, farther than APART from all that stands on the floor
    obstacles: int
    lost: int  # of the obstacles, not in the cloud
    missed: float  # share of the obstacles' cells that are farther than APART from all that the cloud marks


@dataclass(frozen=True)
class Case:
    """How depth gets its meters, and what is left out of its cloud."""

    points: int = POINTS  # of the reference
    local_field: bool = True
    mount_error: float | None = None  # degrees; the camera is taken to look down by more. None: the floor is looked for
    cloud: CloudConfig = ALL

    def floor(self, seen: Seen) -> Floor | None:
        return None if self.mount_error is None else _mounted(seen, self.mount_error)

    def __str__(self) -> str:
        scale = f"local field by {self.points} points" if self.local_field else "line"
        floor = "found" if self.mount_error is None else f"by a mount that is {self.mount_error:+g} degrees off"
        return f"{scale}, floor {floor}{', for Nav2' if self.cloud == NAV2 else ''}"


CASES = (
    *(Case(local_field=False, mount_error=error) for error in (None, *MOUNT_ERRORS)),
    *(Case(mount_error=error) for error in MOUNT_ERRORS),
    *(Case(points, cloud=cloud) for cloud in (ALL, NAV2) for points in (POINTS, 500, 2000, 20000)),
)


def figures(frames: Path | None, quick: bool) -> Iterator[Figure]:
    estimator = load(parameters={"model.threads": 1})
    views = [_view(seen, estimator.predict(seen.image, seen.camera)) for seen in rendered(SCENES, quick)]
    views = [view for view in views if quick or view.is_floor.float().mean() > MIN_SHARE]
    yield from (_figure(views, case) for case in (CASES[-1:] if quick else CASES))


def _view(seen: Seen, answer: Geometry) -> View:
    near = seen.valid & (seen.depth < NEAR)
    points = seen.camera.unproject(seen.depth)
    height = _height(seen, points)
    is_obstacle = near & (height > OBSTACLE)
    around = seen.valid & (seen.depth < NEAR + 1) & (height > FLAT + BUMP)
    obstacles, around = (_cells(_from_above(seen, points[which])) for which in (is_obstacle, around))
    return View(seen, answer, near & (height.abs() < FLAT), is_obstacle, obstacles, around)


def _figure(views: list[View], case: Case) -> Figure:
    found = [_counts(view, case) for view in views]
    pixels = sum(view.floor for view in found)
    left, high, apart = (
        100 * sum(getattr(view, name) for view in found) / max(1, pixels) for name in ("left", "high", "apart")
    )
    told = [view for view in found if view.obstacles > MIN_SHARE * views[0].is_floor.numel()]
    lost, missed = (
        f"{100 * sum(shares) / max(1, len(told)):.2g} % of {what}, at most {100 * max(shares, default=math.nan):.2g} %"
        for shares, what in (
            ([view.lost / view.obstacles for view in told], "the obstacles left out"),
            ([view.missed for view in told], f"their cells without a mark within {APART:g} m"),
        )
    )
    return Figure(
        f"floor within {NEAR:g} m left more than {100 * BUMP:g} cm too high",
        f"{len(views)} views, {case}",
        high,
        "%",
        0.0 if case.local_field else None,
        f"{apart:.2g} % farther than {APART:g} m from all obstacles; {100 - left:.1f} % of the floor left out; {lost}; "
        f"{missed}",
    )


def _counts(view: View, case: Case) -> Counts:
    seen, answer = view.seen, view.answer
    assert answer.disparity is not None and answer.normals is not None
    reference = Reference(measure(known(seen.depth), torch.Generator().manual_seed(0), case.points))
    frame = RelativeGeometry(answer.disparity, seen.image, answer.normals, seen.camera)
    scale = ScaleFilter().align(frame, reference, ScaleConfig(local_field=case.local_field), with_sigma=True)
    found = cloud_of(replace(answer, scale=scale), case.cloud, with_floor=False, floor=case.floor(seen))
    assert found is not None
    found = found[..., :3]
    is_in = torch.isfinite(found).all(-1)
    left = view.is_floor & is_in
    high = left & (_height(seen, found) > BUMP)
    apart = _apart(_from_above(seen, found[high]), view.around)
    lost = view.is_obstacle & ~is_in
    marks = is_in & (_height(seen, found) > BUMP)
    missed = _apart(view.obstacles, _cells(_from_above(seen, found[marks])))
    masks = (view.is_floor, left, high, apart, view.is_obstacle, lost)
    return Counts(*(int(mask.sum()) for mask in masks), float(missed.float().mean()))


def _height(seen: Seen, points: Tensor) -> Tensor:
    """(...) above the true floor, of points (..., 3), meters."""
    assert seen.up is not None
    return points @ seen.up.to(points) + seen.camera_height


def _from_above(seen: Seen, points: Tensor) -> Tensor:
    """Points (N, 3) on the floor below points (N, 3)."""
    assert seen.up is not None
    return points - _height(seen, points)[:, None] * seen.up.to(points)


def _cells(points: Tensor) -> Tensor:
    """The middles (M, 3) of the cells that points (N, 3) are in."""
    return CELL * (points / CELL).round().unique(dim=0)


def _apart(points: Tensor, others: Tensor) -> Tensor:
    """Bool (N,): whether points (N, 3) are farther than APART from all others (M, 3)."""
    return (torch.cdist(points, others) > APART).all(1)


def _mounted(seen: Seen, error: float) -> Floor:
    """By a pitch that is so many degrees off."""
    assert seen.up is not None
    forward = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    level = F.normalize(forward - (forward @ seen.up) * seen.up, dim=0)
    up = math.cos(math.radians(error)) * seen.up - math.sin(math.radians(error)) * level
    return Floor((-up / seen.camera_height).float())
