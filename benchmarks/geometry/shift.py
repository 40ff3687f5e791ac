"""The shift from normals beside a guessed one: exact geometry, geometry with noise, and the bundled model's."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.geometry.figure import Figure
from benchmarks.geometry.seen import Seen, predicted, recorded, rendered, with_noise
from benchmarks.geometry.truth import FAR
from lotus2_ros.inference.loading import load
from lotus2_ros.scale.scale import DEFAULT_SHIFT
from lotus2_ros.scale.shift import shift_from_normals

WHAT = "shift_from_normals: depth error after one factor"
SCENES = {"room": 20, "corridor": 15, "street": 15, "desk": 15}
# Share of disparity's range, degrees, pixels that one error of normals reaches over.
NOISES = {
    "exact": (0.0, 0.0, 1),
    "1 % noise of disparity, 10 degrees of each normal": (0.01, 10.0, 1),
    "the same noise of normals over patches of 12 pixels": (0.01, 10.0, 12),
}
WANTED = dict(zip(NOISES, (0.1, 3.0, None), strict=True))
# What a guess may be, for the best of them in hindsight.
SHIFTS = torch.logspace(-2, 1, 31).tolist()


def figures(frames: Path | None, quick: bool) -> Iterator[Figure]:
    scenes = list(rendered(SCENES, quick))
    for noise, sizes in NOISES.items():
        noisy = [with_noise(seen, seed, *sizes) for seed, seen in enumerate(scenes)]
        yield _figure(f"{len(scenes)} scenes, {noise}", scenes, noisy, WANTED[noise])
    dense = list(recorded(frames)) if frames else []
    for seen in dense:
        noisy = [with_noise(seen, 0, disparity=0.01, degrees=10)]
        yield _figure(f"{seen.name}, 1 % and 10 degrees of noise", [seen], noisy, 5.0)
    estimator = load(parameters={"model.threads": 1})
    answered = partial(predicted, estimator)
    for kind in SCENES:
        exact = [seen for seen in scenes if seen.name == kind]
        yield _figure(f"{len(exact)} {kind}s, bundled model", exact, list(map(answered, exact)), None)
    if dense:
        yield _figure(f"{len(dense)} recorded frames, bundled model", dense, list(map(answered, dense)), None)


def _figure(case: str, exact: Sequence[Seen], seen: Sequence[Seen], wanted: float | None) -> Figure:
    """Median over scenes of the median of |ln z / z*|, percent: of depth from the very disparity that has the noise."""
    found = [_shift(view) for view in seen]
    every = [
        [_error(view.disparity, truth, shift) for shift in SHIFTS] for view, truth in zip(seen, exact, strict=True)
    ]
    common = [statistics.median(errors) for errors in zip(*every, strict=True)]
    beside = {
        f"guess {DEFAULT_SHIFT:g}": _median(seen, exact, [DEFAULT_SHIFT] * len(seen)),
        f"best one guess, {SHIFTS[common.index(min(common))]:.2g}": min(common),
        "best of each": statistics.median(map(min, every)),
        "our shift on exact disparity": _median(exact, exact, found),
    }
    listed = ", ".join(f"{name}: {error:.3g}" for name, error in beside.items())
    return Figure(WHAT, case, _median(seen, exact, found), "%", wanted, listed)


def _median(seen: Sequence[Seen], exact: Sequence[Seen], shifts: Sequence[float]) -> float:
    return statistics.median(
        _error(s.disparity, truth, shift) for s, truth, shift in zip(seen, exact, shifts, strict=True)
    )


def _shift(seen: Seen) -> float:
    """The guess where refused, as the node does."""
    shift, stats = shift_from_normals(seen.disparity, seen.normals, seen.camera.K, seen.valid)
    return DEFAULT_SHIFT if int(stats.refusal) else float(shift)


def _error(disparity: Tensor, truth: Seen, shift: float) -> float:
    """Percent."""
    use = truth.valid & (truth.depth < FAR)
    ratio = ((disparity + shift).clamp_min(1e-3) * truth.depth)[use].log()
    return 100 * float((ratio - ratio.median()).abs().median())
