"""Meters from motion: the size of the triangulated points, and depth by them beside depth by 200 true points."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks.geometry.figure import Figure
from benchmarks.geometry.truth import FAR, known, sparse
from lotus2_ros.bags.files import read_depth
from lotus2_ros.config import ScaleConfig
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.image_files import read_rgb
from lotus2_ros.inference.loading import load
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.motion import Motion
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.scale import RelativeGeometry
from lotus2_ros.scenes.cameras import clear_path
from lotus2_ros.scenes.render import Renderer
from lotus2_ros.scenes.world import Pose
from lotus2_ros.scenes.worlds import build

WIDTH, HEIGHT = 480, 360
FRAMES, PERIOD = 30, 0.1  # seconds
RECORDED_PERIOD = 0.3  # seconds
POINTS = 200
SEEDS = {"room": 301, "corridor": 302, "street": 303}
MOTIONS = ("walking", "turning", "bumps")
# Of noisy odometry, for each frame: a fraction of the motion, and degrees about each axis.
NOISE_MOVED, NOISE_TURNED = 0.02, 0.2
WANTED_MS = 6.0


@dataclass(frozen=True)
class Seen:
    """A frame with the truth: image (H, W, 3), depth (H, W) in meters, pose (4, 4) of the camera."""

    image: Tensor
    depth: Tensor
    pose: np.ndarray
    camera: Camera
    stamp: float


def figures(frames: Path | None, quick: bool) -> Iterator[Figure]:
    estimator = load(parameters={"model.threads": 1})
    ratios: dict[str, list[float]] = {"true poses": [], "noisy poses": []}
    errors: dict[str, list[float]] = {"true poses": [], "noisy poses": []}
    milliseconds: list[float] = []
    for kind in ("room",) if quick else SEEDS:
        for motion in MOTIONS[:1] if quick else MOTIONS:
            sequence = list(rendered(kind, motion, 8 if quick else FRAMES))
            predictions = [_prediction(estimator, seen) for seen in sequence]
            for name, poses in (("true poses", [s.pose for s in sequence]), ("noisy poses", noisy(sequence))):
                references, spent = triangulated(sequence, poses)
                milliseconds += spent
                found = [error for error in map(size_error, references, sequence) if error is not None] or [math.nan]
                errors[name] += found
                by_motion, by_points = depth_errors(sequence, predictions, references)
                ratios[name].append(by_motion / by_points)
                note = f"{by_motion:.3f} against {by_points:.3f}; size off by {100 * statistics.median(found):.1f} %"
                yield Figure("AbsRel by odometry, over that by 200 true points", f"{kind}, {motion}, {name}",
                             ratios[name][-1], "times", None, note)  # fmt: skip
    for name, wanted in (("true poses", 1.1), ("noisy poses", 1.25)):
        median = statistics.median(ratios[name])
        yield Figure("AbsRel by odometry, over that by 200 true points", f"median, {name}", median, "times", wanted)
        worst = 100 * float(np.quantile(errors[name], 0.9))
        size, note = 100 * statistics.median(errors[name]), f"worst tenth {worst:.1f} %"
        yield Figure("size of the points by odometry", name, size, "%", 3.0 if name == "true poses" else None, note)
    yield Figure("time of odometry", f"{WIDTH}x{HEIGHT}", statistics.median(milliseconds), "ms", WANTED_MS)
    for file in () if frames is None else sorted(frames.glob("*/poses.txt")):
        yield from _recorded_figures(file.parent)


def _recorded_figures(folder: Path) -> Iterator[Figure]:
    sequence = recorded(folder)
    for name, poses in (("true poses", [s.pose for s in sequence]), ("noisy poses", noisy(sequence))):
        references, _ = triangulated(sequence, poses)
        found = [error for error in map(size_error, references, sequence) if error is not None] or [math.nan]
        size, worst = 100 * statistics.median(found), 100 * float(np.quantile(found, 0.9))
        note = f"worst tenth {worst:.1f} %; {len(found)} of {len(sequence)} frames"
        wanted = 3.0 if name == "true poses" else None
        yield Figure("size of the points by odometry", f"{folder.name}, {name}", size, "%", wanted, note)


def rendered(kind: str, motion: str, count: int) -> Iterator[Seen]:
    """A clear way through a scene, walked on, with turns, or over bumps."""
    world = build(SEEDS[kind], kind)
    renderer, rng = Renderer(world), np.random.default_rng([SEEDS[kind], 4])
    camera = Camera.from_fov(WIDTH, HEIGHT, 70.0)
    path = clear_path(world, renderer, rng, camera)
    for number in range(count):
        pose = _shaken(path(0.1 + 0.8 * number / count), motion, PERIOD * number)
        view = renderer.view(pose, camera, seed=SEEDS[kind])
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = pose.rotation(), pose.position
        yield Seen(view.image, known(view.depth), matrix, camera, 1 + PERIOD * number)


def recorded(folder: Path, count: int | None = None) -> list[Seen]:
    """The first frames of a sequence: images/, depth/ (millimeters), K.txt and poses.txt, a 4 x 4 matrix a line."""
    K, poses = np.loadtxt(folder / "K.txt"), np.loadtxt(folder / "poses.txt").reshape(-1, 4, 4)
    images, depths = (sorted((folder / name).iterdir()) for name in ("images", "depth"))
    frames: list[Seen] = []
    for number, (image, depth, pose) in enumerate(zip(images[:count], depths, poses, strict=False)):
        pixels = torch.from_numpy(read_rgb(image))
        camera = frames[0].camera if frames else Camera(pixels.shape[1], pixels.shape[0], torch.from_numpy(K))
        truth = known(torch.from_numpy(read_depth(depth, 1000)))
        frames.append(Seen(pixels, truth, pose, camera, 1 + RECORDED_PERIOD * number))
    return frames


def noisy(sequence: Sequence[Seen]) -> list[np.ndarray]:
    """Poses by an odometry whose errors of each frame add up."""
    rng, found = np.random.default_rng(0), [sequence[0].pose]
    for before, after in pairwise(sequence):
        move = np.linalg.inv(before.pose) @ after.pose
        move[:3, 3] += NOISE_MOVED * np.linalg.norm(move[:3, 3]) * rng.standard_normal(3)
        move[:3, :3] @= cv2.Rodrigues(np.radians(NOISE_TURNED) * rng.standard_normal(3))[0]
        found.append(found[-1] @ move)
    return found


def triangulated(sequence: Sequence[Seen], poses: Sequence[np.ndarray]) -> tuple[list[Reference | None], list[float]]:
    """The points of each frame, and the CPU milliseconds that they took."""
    motion, references, spent = Motion(), [], []
    for seen, pose in zip(sequence, poses, strict=True):
        start = time.thread_time()
        references.append(motion.add(seen.image, seen.camera, pose, seen.stamp))
        spent.append(1e3 * (time.thread_time() - start))
    return references, spent


def size_error(reference: Reference | None, seen: Seen) -> float | None:
    """How much the median point is too far or too near, as a fraction; None without points."""
    if reference is None or reference.problem:
        return None
    both = torch.isfinite(reference.depth) & torch.isfinite(seen.depth)
    return float((reference.depth[both] / seen.depth[both]).log().median().abs()) if both.any() else None


def depth_errors(
    sequence: Sequence[Seen], predictions: Sequence[RelativeGeometry], references: Sequence[Reference | None]
) -> tuple[float, float]:
    """Mean AbsRel by these references and by 200 true points, over the frames that are metric by both.

    Odometry has no local field, so the true points are not given one either.
    """
    generator = torch.Generator().manual_seed(0)
    filters, found = (ScaleFilter(), ScaleFilter()), []
    for seen, prediction, reference in zip(sequence, predictions, references, strict=True):
        scales = [
            scale_filter.align(prediction, given, ScaleConfig(local_field=False))
            for scale_filter, given in zip(filters, (reference, _points(seen, generator)), strict=True)
        ]
        if all(scale.metric for scale in scales):
            depths = [
                scale.depth_of(prediction.disparity, prediction.image).nan_to_num(FAR).clamp_max(FAR)
                for scale in scales
            ]
            found.append([float((depth / seen.depth - 1).abs().nanmean()) for depth in depths])
    by_motion, by_points = np.mean(found, axis=0) if found else (math.nan, math.nan)
    return float(by_motion), float(by_points)


def _points(seen: Seen, generator: torch.Generator) -> Reference:
    places = torch.nonzero(torch.isfinite(seen.depth).flatten())[:, 0]
    chosen = places[torch.randperm(len(places), generator=generator)[:POINTS]]
    return Reference(sparse(chosen, seen.depth.flatten()[chosen], seen.depth.shape), seen.stamp)


def _prediction(estimator: Estimator, seen: Seen) -> RelativeGeometry:
    disparity = estimator.predict(seen.image, seen.camera, tasks=("depth",)).disparity
    assert disparity is not None  # depth was asked for
    return RelativeGeometry(disparity, seen.image, None, seen.camera, seen.stamp)


def _shaken(pose: Pose, motion: str, seconds: float) -> Pose:
    """The pose of a camera that is carried, turned to and fro, or driven over bumps."""
    up = np.array([0.0, 0.0, 1.0])
    if motion == "walking":
        step = 2 * math.pi * 0.9 * seconds
        roll = math.radians(math.sin(step))
        return replace(pose, position=pose.position + 0.03 * math.sin(2 * step) * up, roll=roll)
    if motion == "turning":
        return replace(pose, yaw=pose.yaw + math.radians(18) * math.sin(math.tau * seconds / 6))
    bump = abs(math.sin(2 * math.pi * 1.3 * seconds)) ** 6
    pitch = pose.pitch + math.radians(1.5) * bump * math.sin(8 * math.pi * seconds)
    return replace(pose, position=pose.position + 0.02 * bump * up, pitch=pitch, roll=math.radians(0.7) * bump)
