"""Angular errors of normals, per image and pooled over a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.normals import normals_from_depth

LIMITS = (5.0, 7.5, 11.25, 22.5, 30.0)
# Degrees. The median is found within one bin of a histogram, so that not all angles need to be in memory.
BIN = 0.01


@dataclass(frozen=True)
class AngularError:
    """Over all pixels, in degrees; within: the share of angles below each of LIMITS."""

    pixels: int
    mean: float
    median: float
    rmse: float
    within: dict[float, float]


def angular_errors(normals: Tensor, truth: Tensor) -> Tensor:
    """Angles in degrees, (N,) float64, between unit normals (H, W, 3) where both are valid (no NaN)."""
    if normals.shape != truth.shape:
        raise ValueError(f"expected normals of one shape, got {tuple(normals.shape)} and {tuple(truth.shape)}")
    valid = torch.isfinite(normals).all(-1) & torch.isfinite(truth).all(-1)
    cosine = (normals[valid].double() * truth[valid].double()).sum(-1)
    return torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))


def pooled_angular_error(files: Sequence[Path]) -> AngularError:
    """Over all pixels of a data set, as in DSINE's protocol (arXiv 2403.00712); one file of angles (N,) per image.

    Exact, with one image in memory at a time. Raises ValueError if there is no angle.
    """
    histogram = np.zeros(round(180 / BIN) + 1, np.int64)
    total = squares = 0.0
    below = np.zeros(len(LIMITS), np.int64)
    for angles in map(_load, files):
        histogram += np.bincount(_bins(angles), minlength=len(histogram))
        total, squares = total + angles.sum(), squares + np.square(angles).sum()
        below += [np.count_nonzero(angles < limit) for limit in LIMITS]
    pixels = int(histogram.sum())
    if not pixels:
        raise ValueError("expected pixels with normals, got none")
    return AngularError(
        pixels,
        float(total / pixels),
        _median(files, histogram),
        float((squares / pixels) ** 0.5),
        dict(zip(LIMITS, (below / pixels).tolist(), strict=True)),
    )


def agreement(depth: Tensor, normals: Tensor, camera: Camera) -> Tensor:
    """Angles in degrees, (N,), between predicted `normals` (H, W, 3) and those of the predicted `depth` (H, W).

    Only where a plane can be fitted to the depth, see :func:`normals_from_depth`, and neither is NaN.
    """
    return angular_errors(normals_from_depth(depth, camera.rays.to(depth)).to(normals), normals)


def _median(files: Sequence[Path], histogram: np.ndarray) -> float:
    """The middle value, or the mean of the two in the middle."""
    ranks = ((histogram.sum() - 1) // 2, histogram.sum() // 2)
    ends = histogram.cumsum()
    first, last = np.searchsorted(ends, ranks, side="right")
    middle = np.sort(np.concatenate([a[(_bins(a) >= first) & (_bins(a) <= last)] for a in map(_load, files)]))
    start = ends[first] - histogram[first]
    return float(np.mean([middle[rank - start] for rank in ranks]))


def _bins(angles: np.ndarray) -> np.ndarray:
    return (angles / BIN).astype(np.int64)


def _load(file: Path) -> np.ndarray:
    return np.load(file, allow_pickle=False).astype(np.float64)
