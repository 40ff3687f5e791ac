"""Sky and flying pixels: how many of them are found, and how much else with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.geometry.figure import Figure
from lotus2_ros.config import CloudConfig
from lotus2_ros.data.annotation import disparity_annotation
from lotus2_ros.geometry.cloud import flying_pixels
from lotus2_ros.geometry.sky import sky_mask
from lotus2_ros.inference.loading import load
from lotus2_ros.scenes import KINDS, View, view

FIRST_SEED, STREETS, INDOORS = 9000, 20, 5  # streets, and views of each other kind
WIDTH, HEIGHT = 640, 480
TOWARD = torch.tensor([0.0, 0.0, -1.0])
BLURS = (1.0, 2.0)  # standard deviations, pixels
# A point flies that is off every depth seen around it by more than this share; a good one is off its own by less.
FLIES, GOOD, AROUND = 0.05, 0.02, 4


def figures(frames: Path | None, quick: bool) -> Iterator[Figure]:
    count = {kind: (1 if quick else STREETS if kind == "street" else INDOORS) for kind in KINDS}
    seeds = [(kind, FIRST_SEED + n) for kind, most in count.items() for n in range(most)]
    views = {key: view(key[1], WIDTH, HEIGHT, key[0]) for key in seeds}
    streets = [seen for (kind, _), seen in views.items() if kind == "street"]
    indoors = [seen for (kind, _), seen in views.items() if kind != "street"]
    estimator = load()
    masks = {
        "bundled model": lambda seen: estimator.predict(seen.image, seen.camera).sky,
        "true disparity and normals": true_sky,
    }
    for case, mask in masks.items():
        found = [(mask(seen), torch.isinf(seen.depth)) for seen in streets]
        hit, said, true = (
            sum(int(part.sum()) for part in parts)
            for parts in zip(*((sky & truth, sky, truth) for sky, truth in found), strict=True)
        )
        beside = f"{100 * (said - hit) / max(said, 1):.1f} % of what is taken for it is none"
        yield Figure(
            "sky missed", f"{len(streets)} streets, {case}", 100 - 100 * hit / max(true, 1), "%", beside=beside
        )
        shares = [100 * float(mask(seen).float().mean()) for seen in indoors]
        beside = f"in the worst view {max(shares):.1f} %"
        yield Figure("sky indoors", f"{len(indoors)} views, {case}", sum(shares) / len(shares), "%", beside=beside)
    for blur in BLURS:
        yield _flying([*streets[:8], *indoors], blur)


def true_sky(seen: View) -> Tensor:
    """The sky as found in what a perfect model would say."""
    annotation, _, shift = disparity_annotation(seen.depth)
    normals = torch.where(torch.isfinite(seen.normals), seen.normals, TOWARD)
    return sky_mask((annotation[0] + 1) / 2, normals, float(shift))


def _flying(views: list[View], blur: float) -> Figure:
    flying = good = removed = lost = 0
    for seen in views:
        depth = 1 / _blurred(1 / seen.depth, blur)
        flies = (_off(depth, seen.depth) > FLIES) & torch.isfinite(depth)
        fine = (depth - seen.depth).abs() < GOOD * seen.depth
        mask = flying_pixels(depth, CloudConfig().edge_threshold)
        flying, removed = flying + int(flies.sum()), removed + int((flies & mask).sum())
        good, lost = good + int(fine.sum()), lost + int((fine & mask).sum())
    beside = f"{100 * lost / good:.2f} % of the good points go too"
    return Figure(
        "flying pixels left", f"edges blurred by {blur:g} px", 100 - 100 * removed / flying, "%", beside=beside
    )


def _blurred(values: Tensor, sigma: float) -> Tensor:
    side = 2 * int(3 * sigma) + 1
    return torch.from_numpy(cv2.GaussianBlur(values.numpy(), (side, side), sigma, borderType=cv2.BORDER_REPLICATE))


def _off(depth: Tensor, truth: Tensor) -> Tensor:
    """How far a depth is off the nearest of the true ones around its pixel, as a share of it."""
    height, width = depth.shape
    padded = F.pad(truth, (AROUND,) * 4, value=torch.inf)
    best = torch.full_like(depth, torch.inf)
    for v in range(2 * AROUND + 1):
        for u in range(2 * AROUND + 1):
            best = torch.minimum(best, (padded[v : v + height, u : u + width] - depth).abs() / depth)
    return best
