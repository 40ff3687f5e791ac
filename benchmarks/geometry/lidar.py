"""The bundled model's disparity fitted to a few measured points of recorded frames, measured at all others."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.geometry.figure import Figure
from benchmarks.geometry.truth import FAR, draw, known, sparse
from lotus2_ros.evaluation.frames import read_frames
from lotus2_ros.evaluation.metrics import affine_invariant_depth_error, depth_error
from lotus2_ros.inference.loading import load
from lotus2_ros.scale.fit import AlignmentError
from lotus2_ros.scale.reference import Reference, fit_to_reference

DRAWS = 20
WRONG = 0.2
# How much worse than least squares with all points a fit to 500 of them may be, without and with wrong ones.
WANTED = {(500, 0.0): 1.05, (500, WRONG): 1.1}


def figures(frames: Path | None, quick: bool) -> Iterator[Figure]:
    if frames is None:
        return
    estimator = load(parameters={"model.threads": 1})
    for frame in read_frames(frames):
        disparity = estimator.predict(frame.image, tasks=("depth",)).disparity
        assert disparity is not None  # depth was asked for
        depth = known(frame.depth)
        every = affine_invariant_depth_error(disparity, depth, (1e-3, FAR)).abs_rel
        for points, wrong in ((64, 0.0), (500, 0.0), (500, WRONG)):
            draws = [_error(disparity, depth, points, wrong, seed) for seed in range(3 if quick else DRAWS)]
            errors = [error for error in draws if math.isfinite(error)]
            found = statistics.median(errors) if errors else math.nan
            case = f"{frame.name}, {points} points" + (f", {wrong:.0%} at random depths" if wrong else "")
            yield Figure(
                "AbsRel of a fit to a few points, over that of least squares with all",
                case,
                found / every,
                "times",
                None if quick else WANTED.get((points, wrong)),
                f"AbsRel {found:.3f}, worst draw {max(errors, default=found):.3f}, all points {every:.3f}; "
                f"{len(draws) - len(errors)} of {len(draws)} draws refused",
            )


def _error(disparity: Tensor, depth: Tensor, points: int, wrong: float, seed: int) -> float:
    """AbsRel at all measured pixels but the random ones fitted to, some of them made wrong; NaN if that is refused."""
    chosen, values = draw(depth, points, wrong, seed)
    try:
        scale, shift, _ = fit_to_reference(disparity, Reference(sparse(chosen, values, depth.shape)))
    except AlignmentError:
        return math.nan
    rest = torch.isfinite(depth).flatten().scatter(0, chosen, False)
    inverse_depth = (scale * disparity.flatten()[rest].double() + shift).clamp_min(1 / FAR)
    return depth_error(1 / inverse_depth, depth.flatten()[rest].double()).abs_rel
