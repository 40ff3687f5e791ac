"""Procedural scenes with exact depth and normals. Scene number N is always the same.

Training uses the numbers from TRAINING_SEEDS upward; those below are held out, for
evaluation, tests and demonstrations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.distortion import EQUIDISTANT, PLUMB_BOB, Lens
from lotus2_ros.scenes.render import Renderer, View
from lotus2_ros.scenes.world import Pose, World
from lotus2_ros.scenes.worlds import KINDS, build

__all__ = ["HELD_OUT_SEEDS", "KINDS", "TRAINING_SEEDS", "View", "sequence", "view", "views"]

HELD_OUT_SEEDS = 200  # the first that models are measured on, if nothing else is said
TRAINING_SEEDS = 1_000_000
FRAMES_PER_SECOND = 10.0
_GLANCE = 24


def view(seed: int, width: int, height: int, kind: str | None = None) -> View:
    """The first view of scene `seed`; its kind is the seed's unless one of KINDS is given."""
    return next(views(seed, width, height, kind))


def views(seed: int, width: int, height: int, kind: str | None = None) -> Iterator[View]:
    """Views of scene `seed` from cameras here and there in it, without end."""
    if kind is not None and kind not in KINDS:
        raise ValueError(f"expected a kind among {', '.join(KINDS)}; got {kind!r}")
    world = build(seed, kind)
    renderer, rng = Renderer(world), np.random.default_rng([seed, 3])
    while True:
        camera = Camera.from_fov(width, height, float(rng.uniform(*world.fov)))
        pose = _clear_pose(world, renderer, rng, camera)
        yield renderer.view(pose, _drawn_by_a_lens(camera, rng), seed=int(rng.integers(2**31)))


def sequence(
    seed: int = 0, frames: int = 60, width: int = 640, height: int = 480, kind: str = "room"
) -> Iterator[View]:
    """A camera that moves smoothly through a scene of one of KINDS: `frames` views, ten per second."""
    world = build(seed, kind)
    renderer, rng = Renderer(world), np.random.default_rng([seed, 4])
    camera = Camera.from_fov(width, height, 70.0)
    path = _clear_path(world, renderer, rng, camera)
    for i in range(frames):
        yield renderer.view(path(i / max(1, frames - 1)), camera, seed=seed, stamp_s=i / FRAMES_PER_SECOND)


def _drawn_by_a_lens(camera: Camera, rng: np.random.Generator) -> Camera:
    """Most cameras as they are; of the others some are off centre, some distort, a few are fisheyes."""
    if rng.random() > 0.25:
        return camera
    K = camera.K.clone()
    K[:2, 2] += torch.from_numpy(rng.normal(0, 0.03, 2)) * camera.width
    kind = rng.random()
    if kind < 0.4:
        return replace(camera, K=K)
    # Coefficients by the radius of the corner, so that every pixel has a ray, of any field of view.
    corner = float(np.hypot(camera.width, camera.height)) / 2 / float(K[0, 0])
    if kind < 0.85:
        k1, p1, p2 = rng.uniform(-0.09, 0.05) / corner**2, *rng.normal(0, 2e-3, 2)
        return replace(camera, K=K, lens=Lens(PLUMB_BOB, (float(k1), 0.0, float(p1), float(p2))))
    half_angle = np.radians(rng.uniform(25, 52))
    K[0, 0] = K[1, 1] = camera.width / 2 / half_angle
    return replace(camera, K=K, lens=Lens(EQUIDISTANT, (float(rng.normal(0, 0.01)), 0.0, 0.0, 0.0)))


def _glance(renderer: Renderer, pose: Pose, camera: Camera) -> tuple[float, float, int]:
    """The nearest depth, the largest share of the image that one part takes, and how many parts are seen."""
    depth, part = renderer.glance(pose, camera.resize(_GLANCE, max(4, _GLANCE * camera.height // camera.width)))
    counts = np.bincount(part.flatten().numpy() + 1)
    return float(depth.min()), counts.max() / part.numel(), int(np.count_nonzero(counts))


def _clear_pose(world: World, renderer: Renderer, rng: np.random.Generator, camera: Camera) -> Pose:
    """Nothing too near, and more to see than one or two surfaces, but for some views from close by."""
    near, most, fewest = (0.5, 0.9, 3) if rng.random() < 0.15 else (1.0, 0.65, 5)
    for attempt in range(40):
        pose = world.choose_pose(rng)
        nearest, largest, things = _glance(renderer, pose, camera)
        if nearest > near * world.clearance * 0.97**attempt and largest < most and things >= fewest:
            break
    return pose


def _clear_path(world: World, renderer: Renderer, rng: np.random.Generator, camera: Camera) -> Callable[[float], Pose]:
    """Pose by time in [0, 1]: a gentle curve, its way clear all along and, of several, the one that sees most."""
    best, most_seen = None, -1.0
    for attempt in range(60):
        start, ease = world.choose_pose(rng), 0.98**attempt
        reach = 1.4 if world.sky is None else 5.0
        drift = ease * np.array([*rng.uniform(-reach, reach, 2), rng.uniform(-0.2, 0.2)])
        turn = ease * float(rng.choice((-1, 1)) * np.radians(rng.uniform(25, 50)))
        height, pitch = rng.uniform(1.1, 1.7), np.radians(rng.uniform(-22, -8))
        level = Pose(np.array([*start.position[:2], height]), start.yaw, float(pitch))

        def path(time: float, level: Pose = level, drift: np.ndarray = drift, turn: float = turn) -> Pose:
            swing = 0.5 - 0.5 * np.cos(np.pi * time)
            return replace(level, position=level.position + drift * swing, yaw=level.yaw + turn * (swing - 0.5))

        glances = [_glance(renderer, path(time), camera) for time in np.linspace(0, 1, 9)]
        clearance, seen = min(nearest for nearest, _, _ in glances), min(things for _, _, things in glances)
        # A way through something is only taken when there is no other.
        score = seen if clearance > 0.7 * ease else clearance - 1
        if score > most_seen:
            best, most_seen = path, score
    return best or path
