"""`lotus2 evaluate`: a model against exact depth and normals of held-out scenes, and against recorded frames."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from lotus2_ros import scenes
from lotus2_ros.config import Config
from lotus2_ros.estimator import Estimator, Geometry, load_estimator
from lotus2_ros.evaluation.frames import read_frames
from lotus2_ros.evaluation.metrics import affine_invariant_depth_error, angular_errors, image_row

WIDTH, HEIGHT = 320, 240


@dataclass
class Scores:
    """Per image, of one row of the table."""

    core: list[float] = field(default_factory=list)
    delta1: list[float] = field(default_factory=list)
    sharp: list[float] = field(default_factory=list)
    row: list[float] = field(default_factory=list)
    angle: list[float] = field(default_factory=list)
    sharp_angle: list[float] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="", help="bundle or released layout (the bundled model)")
    parser.add_argument("--views", type=int, default=40, help="held-out views of each kind of scene (%(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="number of the first held-out scene (%(default)s)")
    parser.add_argument("--frames", type=Path, nargs="*", default=[], metavar="DIR",
                        help="folders with rgb.png, depth.png and intrinsics.json, or folders of such")  # fmt: skip
    parser.add_argument("--steps", type=int, help="sharpener steps (the model's own); 0 leaves it out")


def run(args: argparse.Namespace) -> int:
    if not 0 <= args.first_seed <= scenes.TRAINING_SEEDS - args.views:
        raise ValueError(f"expected held-out scenes, numbers below {scenes.TRAINING_SEEDS}, got {args.first_seed}")
    # Not compiled: that takes a while for each size of image, and recorded frames are of many.
    estimator = load_estimator(Config().updated({"model.path": args.model, "model.compile": False}))
    table: dict[str, Scores] = {}
    for name, image, depth, normals in _views(args):
        measure(estimator, image, depth, normals, args.steps, table.setdefault(name, Scores()))
    print("| | images | AbsRel | delta1 | sharpened | image row | AbsRel / row | normals | sharpened |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, scores in table.items():
        print(format_row(name, scores))
    held_out = [scores for name, scores in table.items() if name in scenes.KINDS]
    recorded = [scores for name, scores in table.items() if name not in scenes.KINDS]
    if held_out:
        print(format_row("**held-out scenes**", pool(held_out)))
    if recorded:
        ratios = [math.log(_mean(scores.core) / _mean(scores.row)) for scores in recorded]
        print(format_row("**recorded frames**", pool(recorded)))
        print(f"\nrecorded frames, geometric mean of AbsRel / row: {math.exp(_mean(ratios)):.3f}")
    return 0


def measure(
    estimator: Estimator, image: Tensor, depth: Tensor, normals: Tensor | None, steps: int | None, scores: Scores
) -> None:
    """One image into `scores`."""
    coarse = estimator.predict(image)
    error = affine_invariant_depth_error(_disparity(coarse), depth)
    scores.core.append(error.abs_rel)
    scores.delta1.append(error.delta1)
    scores.row.append(affine_invariant_depth_error(image_row(*depth.shape), depth).abs_rel)
    if normals is not None and coarse.normals is not None:
        scores.angle.append(float(angular_errors(coarse.normals.cpu(), normals).mean()))
    if steps != 0 and estimator.model.has_sharpener("depth"):
        sharp = [geometry for geometry in estimator.sharpen(coarse, steps) if geometry is not None][-1]
        scores.sharp.append(affine_invariant_depth_error(_disparity(sharp), depth).abs_rel)
        if normals is not None and sharp.normals is not None:
            scores.sharp_angle.append(float(angular_errors(sharp.normals.cpu(), normals).mean()))


def pool(rows: list[Scores]) -> Scores:
    """All images of several rows as one."""
    pooled = Scores()
    for row in rows:
        for name, values in vars(row).items():
            getattr(pooled, name).extend(values)
    return pooled


def format_row(name: str, scores: Scores) -> str:
    ratio = _mean(scores.core) / _mean(scores.row)
    columns = [_mean(scores.core), _mean(scores.delta1), _mean(scores.sharp), _mean(scores.row), ratio]
    angles = [_mean(scores.angle), _mean(scores.sharp_angle)]
    cells = [f"{value:.3f}" for value in columns] + [f"{value:.1f}°" for value in angles]
    return f"| {name} | {len(scores.core)} | " + " | ".join("-" if "nan" in cell else cell for cell in cells) + " |"


def _views(args: argparse.Namespace) -> Iterator[tuple[str, Tensor, Tensor, Tensor | None]]:
    """Row of the table, image, depth, normals."""
    for kind in scenes.KINDS:
        for seed in range(args.first_seed, args.first_seed + args.views):
            view = scenes.view(seed, WIDTH, HEIGHT, kind)
            yield kind, view.image, view.depth, view.normals
    for folder in args.frames:
        for frame in read_frames(folder):
            yield frame.name, frame.image, frame.depth, None


def _disparity(geometry: Geometry) -> Tensor:
    if geometry.disparity is None:
        raise ValueError("expected a model with the task depth")
    return geometry.disparity.cpu()


def _mean(values: list[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).mean()) if values else math.nan
