"""Where a camera stands in a world and how it looks: poses, paths, lenses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.lens import EQUIDISTANT, PLUMB_BOB, Lens
from lotus2_ros.scenes.render import Renderer
from lotus2_ros.scenes.world import Pose, World

SURROUNDINGS = (0.4, 2.0)  # width of what is seen of a thing and around it, in sizes of large things
_GLANCE = 24


def drawn_by_a_lens(camera: Camera, rng: np.random.Generator) -> Camera:
    """A camera with a random lens: most are unchanged, some are off center, some distort, a few are fisheyes."""
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


def _small(camera: Camera) -> Camera:
    return camera.resize(_GLANCE, max(4, _GLANCE * camera.height // camera.width))


def _glance(renderer: Renderer, pose: Pose, camera: Camera) -> tuple[float, float, int]:
    """The nearest depth, the largest share of the image that one part takes, and how many parts are seen."""
    depth, part = renderer.glance(pose, _small(camera))
    counts = np.bincount(part.flatten().numpy() + 1)
    return float(depth.min()), counts.max() / part.numel(), int(np.count_nonzero(counts))


def clear_pose(world: World, renderer: Renderer, rng: np.random.Generator, camera: Camera) -> Pose:
    """A pose with nothing too near and with more than one or two surfaces in view, except for some close views."""
    near, most, fewest = (0.5, 0.9, 3) if rng.random() < 0.15 else (1.0, 0.65, 5)
    for attempt in range(40):
        pose = world.choose_pose(rng)
        nearest, largest, things = _glance(renderer, pose, camera)
        if nearest > near * world.clearance * 0.97**attempt and largest < most and things >= fewest:
            break
    return pose


def pose_before_a_thing(world: World, renderer: Renderer, rng: np.random.Generator, camera: Camera) -> Pose:
    """A pose near an object, which is in the middle and fills a good part of the image. A clear pose if no object can
    be approached."""
    small = _small(camera)
    least, most = np.log(world.size_of_things * np.array(SURROUNDINGS))
    for _ in range(40):
        far = clear_pose(world, renderer, rng, camera)
        depth, part = renderer.glance(far, small)
        things = torch.nonzero((part >= 0) & renderer.is_thing[part])
        if not len(things):
            continue
        row, column = things[int(rng.integers(len(things)))].tolist()
        target = far.position + far.rotation() @ (depth[row, column] * small.rays[row, column]).numpy()
        distance = float(np.exp(rng.uniform(least, most)) * camera.K[0, 0]) / camera.width
        distance = max(distance, 1.5 * world.clearance)
        x, y, _ = target - far.position
        turned = Pose(np.zeros(3), float(np.arctan2(y, x)), float(np.radians(rng.uniform(-40, 8))))
        near = replace(
            turned, position=target - distance * turned.rotation()[:, 2], roll=float(np.radians(rng.normal(0, 4)))
        )
        depth, _ = renderer.glance(near, small)
        middle = depth[depth.shape[0] // 2, depth.shape[1] // 2]
        unhidden = 0.8 * distance < middle < 1.25 * distance
        if unhidden and near.position[2] > 0.15 and depth.min() > world.clearance / 2:
            return near
    return far


def clear_path(world: World, renderer: Renderer, rng: np.random.Generator, camera: Camera) -> Callable[[float], Pose]:
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
