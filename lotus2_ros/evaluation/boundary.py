"""Accuracy of depth edges: the scale-invariant boundary F1 of Depth Pro (Bochkovskii et al., arXiv 2410.02073)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Ratios of neighboring depths, 5 to 25 % apart; larger ones have larger weights, as in the paper.
THRESHOLDS = torch.linspace(1.05, 1.25, 10, dtype=torch.float64)


@dataclass(frozen=True)
class BoundaryScore:
    """Means over the thresholds. NaN: the truth has no edge."""

    precision: float
    recall: float
    f1: float


def boundary_score(depth: Tensor, truth: Tensor) -> BoundaryScore:
    """Edges of `depth` (H, W) against those of `truth` (H, W), meters, NaN where `truth` is unknown.

    There is an edge between two of four neighboring pixels if the farther is more than a threshold times as far as the
    nearer one; an edge has a place and a direction. Precision is the share of predicted edges that are true, recall
    the share of true edges that are predicted. An edge must be at exactly its place, as in the paper. Upsampled depth
    spreads its edges over several pixels and scores low, so measure at the model's own resolution. Unlike the public
    code, but like the paper's equations, this pools the four directions; and a threshold that no true edge reaches is
    left out instead of counted as 0.
    """
    if depth.shape != truth.shape:
        raise ValueError(f"expected depths of one shape, got {tuple(depth.shape)} and {tuple(truth.shape)}")
    predicted, true = _log_steps(torch.where(truth.isnan(), torch.nan, depth)), _log_steps(truth)
    scores = torch.tensor([_score(predicted, true, math.log(threshold)) for threshold in THRESHOLDS.tolist()])
    given = ~scores[:, 0].isnan()
    if not bool(given.any()):
        return BoundaryScore(math.nan, math.nan, math.nan)
    weights = THRESHOLDS[given] / THRESHOLDS[given].sum()
    return BoundaryScore(*(weights @ scores[given].double()).tolist())


def _log_steps(depth: Tensor) -> Tensor:
    """Differences of log depth between horizontal and vertical neighbors, (N,)."""
    return torch.cat([depth.double().log().diff(dim=dim).flatten() for dim in (0, 1)])


def _score(predicted: Tensor, true: Tensor, step: float) -> tuple[float, float, float]:
    """Precision, recall, F1 at one threshold."""
    ours, theirs = ((steps > step).int() - (steps < -step).int() for steps in (predicted, true))
    found, there = int(ours.abs().sum()), int(theirs.abs().sum())
    if not there:
        return math.nan, math.nan, math.nan
    right = int((ours * theirs > 0).sum())
    return right / max(found, 1), right / there, 2 * right / (found + there)
