"""Meters from the camera's height: rendered views with a floor, exact, with noise, and the bundled model's."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.geometry.figure import Figure
from benchmarks.geometry.seen import Seen, predicted, rendered, with_noise
from benchmarks.geometry.truth import FAR
from lotus2_ros.inference.loading import load
from lotus2_ros.scale.ground import scale_from_ground

WHAT = "scale_from_ground: AbsRel"
SCENES = {"room": 15, "corridor": 15, "warehouse": 15, "street": 15}
# Noise of disparity, share of its range, and of normals, degrees; degrees that `up` is off by.
CASES = {
    "exact": (0.0, 0.0, 0.0),
    "10 degrees noise of each normal": (0.0, 10.0, 0.0),
    "the same, 1 % noise of disparity": (0.01, 10.0, 0.0),
    "the same, up 1 degree off": (0.01, 10.0, 1.0),
    "the same, up 3 degrees off": (0.01, 10.0, 3.0),
}
WANTED = dict(zip(CASES, (0.03, 0.08, 0.08, None, None), strict=True))
MODEL_CASES = {"up exact": 0.0, "up 3 degrees off": 3.0}


def figures(frames: Path | None, quick: bool) -> Iterator[Figure]:
    views = list(rendered(SCENES, quick))
    for case, (disparity, degrees, off) in CASES.items():
        noisy = [with_noise(view, seed, disparity, degrees) for seed, view in enumerate(views)]
        depths = [_metric(view, off, seed) for seed, view in enumerate(noisy)]
        yield _figure(case, depths, views, WANTED[case])
    estimator = load(parameters={"model.threads": 1})
    answered = [predicted(estimator, view) for view in views]
    for case, off in MODEL_CASES.items():
        depths = [_metric(view, off, seed) for seed, view in enumerate(answered)]
        yield _figure(f"bundled model, {case}", depths, views, None)


def _figure(case: str, depths: list[Tensor | None], views: list[Seen], wanted: float | None) -> Figure:
    """Median over the scenes that are not refused, with the noise of disparity itself."""
    errors: dict[str, list[float]] = {kind: [] for kind in SCENES}
    for depth, view in zip(depths, views, strict=True):
        if depth is not None:
            use = view.valid & (view.depth < FAR)
            errors[view.name].append(float(((depth - view.depth).abs() / view.depth)[use].mean()))
    found = [error for values in errors.values() for error in values]
    each = ", ".join(f"{kind} {statistics.median(values):.2g}" for kind, values in errors.items() if values)
    beside = f"{each}; worst {max(found):.2g}; refused {len(views) - len(found)}, without a floor {_floorless(views)}"
    return Figure(WHAT, f"{len(views)} scenes, {case}", statistics.median(found), "", wanted, beside)


def _metric(view: Seen, off: float, seed: int) -> Tensor | None:
    """Depth, or None where refused; `up` is `off` by so many degrees to any side."""
    assert view.up is not None  # rendered views have it
    side = torch.randn(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    side = F.normalize(side - (side @ view.up) * view.up, dim=0)
    up = math.cos(math.radians(off)) * view.up + math.sin(math.radians(off)) * side
    disparity = torch.where(view.valid, view.disparity, torch.nan)
    scale, shift, stats = scale_from_ground(
        disparity, view.normals, view.camera.K, up, view.camera_height, shift_by_normals=True
    )
    return None if int(stats.refusal) else 1 / (scale * disparity + shift).clamp_min(1 / FAR)


def _floorless(views: list[Seen]) -> int:
    """How many show a floor, the ground or what lies on it flat, in less than 1 % of the image."""
    shares = []
    for view in views:
        assert view.up is not None
        height = view.camera.unproject(view.depth).double() @ view.up + view.camera_height
        shares.append(float((height.abs() < 0.05).double().mean()))
    return sum(share < 0.01 for share in shares)
