"""Depth between the points of a reference: the line, the points interpolated, and the line with the local field."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks.geometry.figure import Figure
from benchmarks.geometry.truth import FAR, camera_of, draw, is_dense, known, prediction, sparse
from lotus2_ros import scenes
from lotus2_ros.config import ScaleConfig
from lotus2_ros.evaluation.frames import read_frames
from lotus2_ros.evaluation.metrics import depth_error
from lotus2_ros.geometry.normals import normals_from_depth
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.loading import load
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.scale import RelativeGeometry

DRAWS = 5
INDOORS, OUTDOORS = 200, 500  # points
WRONG = 0.2
SEED = 201
WIDTH, HEIGHT = 640, 480
WAYS = ("line", "nearest", "linear", "field")


@dataclass(frozen=True)
class Case:
    """A number of points, 0: by kind of frame, the share of wrong ones, and what is wanted."""

    points: int = 0
    wrong: float = 0.0
    of_line: float | None = None  # most of the field's error over the line's, geometric mean over frames
    of_best: float | None = None  # and over that of the better interpolation
    worst: float | None = None  # the latter in the worst frame

    def __str__(self) -> str:
        points = f"{self.points} points" if self.points else f"{INDOORS} or {OUTDOORS} points"
        return points + (f", {self.wrong:.0%} wrong" if self.wrong else "")


CASES = (
    Case(of_line=0.45, of_best=0.9, worst=1.05),
    Case(wrong=WRONG, of_line=0.45 * 1.15, of_best=0.9 * 1.15, worst=1.05 * 1.15),
    Case(points=64, of_line=0.8),
    Case(points=25, of_line=1.0),
)


def figures(frames: Path | None, quick: bool) -> Iterator[Figure]:
    estimator = load(parameters={"model.threads": 1})
    if frames is not None:
        seen = list(read_frames(frames))
        predictions = [prediction(estimator, frame.image, camera_of(frames, frame)) for frame in seen]
        names, depths = [frame.name for frame in seen], [frame.depth for frame in seen]
        for case in CASES:
            yield from _case_figures(case, names, predictions, depths, 1 if quick else DRAWS)
    kinds = scenes.KINDS[:1] if quick else scenes.KINDS
    yield from _normals_figures(estimator, kinds)
    yield _sharp_figure(estimator, kinds)


def _case_figures(
    case: Case, names: list[str], predictions: list[RelativeGeometry], depths: list[Tensor], draws: int
) -> Iterator[Figure]:
    of_line, of_best, refused = [], [], 0
    for name, predicted, depth in zip(names, predictions, depths, strict=True):
        truth = known(depth)
        points = case.points or (INDOORS if is_dense(truth) else OUTDOORS)
        found = [_errors(predicted, truth, points, case.wrong, seed) for seed in range(draws)]
        errors = [error for error in found if error is not None]
        refused += len(found) - len(errors)
        if not errors:
            continue
        medians = {way: statistics.median(error[way] for error in errors) for way in WAYS}
        best = min(medians["nearest"], medians["linear"])
        of_line.append(medians["field"] / medians["line"])
        of_best.append(medians["field"] / best)
        beside = ", ".join(f"{way} {medians[way]:.3f}" for way in WAYS[:3])
        yield Figure("AbsRel between the points, with the field", f"{name}, {case}", medians["field"], "", None, beside)
    note = f"{refused} of {draws * len(names)} draws refused by the fit and left out"
    if not of_line:
        of_line, of_best = [math.nan], [math.nan]
    over = "field over the line, geometric mean"
    yield Figure(over, str(case), statistics.geometric_mean(of_line), "times", case.of_line, note)
    over = "field over the better interpolation"
    yield Figure(over, f"{case}, geometric mean", statistics.geometric_mean(of_best), "times", case.of_best)
    yield Figure(over, f"{case}, worst frame", max(of_best), "times", case.worst)


def _normals_figures(estimator: Estimator, kinds: tuple[str, ...]) -> Iterator[Figure]:
    angles: dict[str, list[float]] = {way: [] for way in WAYS}
    for kind in kinds:
        view = scenes.view(SEED, WIDTH, HEIGHT, kind)
        predicted = prediction(estimator, view.image, view.camera)
        truth = known(view.depth)
        depths = reconstructed(predicted, truth, *draw(truth, INDOORS, 0.0, 0))
        if depths is None:
            continue
        for way in WAYS:
            normals = normals_from_depth(depths[way], view.camera.rays)
            angle = torch.rad2deg((normals * view.normals).sum(-1).clamp(-1, 1).acos())
            angles[way].append(float(angle[torch.isfinite(angle) & torch.isfinite(truth)].mean()))
    means = {way: statistics.mean(values) for way, values in angles.items()}
    beside = ", ".join(f"{way} {means[way]:.1f}" for way in WAYS[:3])
    for way in ("nearest", "linear"):
        yield Figure(
            f"angle of normals of the depth with the field, over {way} interpolation",
            f"rendered, {INDOORS} points",
            means["field"] / means[way],
            "times",
            0.6,
            f"field {means['field']:.1f} degrees, {beside}",
        )


def _sharp_figure(estimator: Estimator, kinds: tuple[str, ...]) -> Figure:
    errors: dict[str, list[float]] = {"coarse": [], "sharp": []}
    for kind in kinds:
        view = scenes.view(SEED, WIDTH, HEIGHT, kind)
        truth = known(view.depth)
        chosen, values = draw(truth, OUTDOORS, 0.0, 0)
        coarse = estimator.predict(view.image, view.camera, Reference(sparse(chosen, values, truth.shape)))
        for stage, geometry in (("coarse", coarse), ("sharp", estimator.sharpen(coarse, tasks=("depth",)).result())):
            assert geometry.depth is not None  # the bundled model predicts it
            errors[stage].append(depth_error(geometry.depth.nan_to_num(FAR).clamp_max(FAR), truth).abs_rel)
    coarse_error, sharp_error = map(statistics.geometric_mean, errors.values())
    beside = f"coarse {coarse_error:.4f}, sharp {sharp_error:.4f}"
    what = "AbsRel of sharpened depth over coarse depth, with the field"
    return Figure(what, f"rendered, {OUTDOORS} points", sharp_error / coarse_error, "times", None, beside)


def _errors(
    predicted: RelativeGeometry, truth: Tensor, points: int, wrong: float, seed: int
) -> dict[str, float] | None:
    """AbsRel of each way at all measured pixels but the points; None if the fit is refused."""
    chosen, values = draw(truth, points, wrong, seed)
    depths = reconstructed(predicted, truth, chosen, values)
    if depths is None:
        return None
    rest = torch.isfinite(truth).flatten().scatter(0, chosen, False)
    at = truth.flatten()[rest]
    return {way: depth_error(depth.flatten()[rest], at).abs_rel for way, depth in depths.items()}


def reconstructed(
    predicted: RelativeGeometry, truth: Tensor, chosen: Tensor, values: Tensor
) -> dict[str, Tensor] | None:
    """Depth (H, W) by each way. The interpolations are given the true depth at all points."""
    reference = Reference(sparse(chosen, values, truth.shape))
    scale = ScaleFilter().align(predicted, reference, ScaleConfig(local_field=True))
    if not scale.metric:
        return None
    inverse_depth = scale.scale * predicted.disparity + scale.shift
    nearest, linear = interpolated(chosen, truth.flatten()[chosen], truth.shape)
    field = scale.depth_of(predicted.disparity, predicted.image).nan_to_num(FAR).clamp_max(FAR)
    return {"line": 1 / inverse_depth.clamp_min(1 / FAR), "nearest": nearest, "linear": linear, "field": field}


def interpolated(places: Tensor, values: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
    """Values at flat pixel indices, interpolated to (H, W): the nearest one, and linear over Delaunay triangles.

    Outside of all triangles the second is the nearest one too.
    """
    height, width = size
    v, u, given = (places // width).numpy(), (places % width).numpy(), values.numpy()
    unknown = np.full((height, width), 255, np.uint8)
    unknown[v, u] = 0
    _, label = cv2.distanceTransformWithLabels(unknown, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    of_label = np.zeros(label.max() + 1, np.float32)
    of_label[label[v, u]] = given
    nearest = of_label[label]
    linear, at = nearest.copy(), {(int(x), int(y)): float(z) for x, y, z in zip(u, v, given, strict=True)}
    division = cv2.Subdiv2D((0, 0, width, height))
    for corner in at:
        division.insert(tuple(map(float, corner)))
    for triangle in division.getTriangleList():
        corners = [(round(float(x)), round(float(y))) for x, y in triangle.reshape(3, 2)]
        if all(corner in at for corner in corners):  # the others reach to the frame of the subdivision
            _fill(linear, corners, [at[corner] for corner in corners])
    return torch.from_numpy(nearest), torch.from_numpy(linear)


def _fill(image: np.ndarray, corners: list[tuple[int, int]], values: list[float]) -> None:
    """Write a triangle of linear values."""
    (x0, y0), (x1, y1), (x2, y2) = corners
    area = (y1 - y2) * (x0 - x2) + (x2 - x1) * (y0 - y2)
    if area == 0:
        return
    left, top, right, bottom = min(x0, x1, x2), min(y0, y1, y2), max(x0, x1, x2), max(y0, y1, y2)
    y, x = np.mgrid[top : bottom + 1, left : right + 1]
    first = ((y1 - y2) * (x - x2) + (x2 - x1) * (y - y2)) / area
    second = ((y2 - y0) * (x - x2) + (x0 - x2) * (y - y2)) / area
    third = 1 - first - second
    inside = np.minimum(np.minimum(first, second), third) >= -1e-6
    mixed = first * values[0] + second * values[1] + third * values[2]
    image[top : bottom + 1, left : right + 1][inside] = mixed[inside]
