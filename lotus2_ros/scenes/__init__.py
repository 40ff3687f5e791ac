"""Procedural scenes with exact depth and normals. Scene number N is always the same.

Training uses the numbers from TRAINING_SEEDS upward; those below are held out for evaluation, tests and
demonstrations.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.scenes.assets import Assets
from lotus2_ros.scenes.cameras import clear_path, clear_pose, drawn_by_a_lens, pose_before_a_thing
from lotus2_ros.scenes.render import Renderer, View
from lotus2_ros.scenes.worlds import KINDS, build

__all__ = ["HELD_OUT_SEEDS", "KINDS", "TRAINING_SEEDS", "View", "sequence", "view", "views"]

HELD_OUT_SEEDS = 200  # the first that models are measured on, if nothing else is said
TRAINING_SEEDS = 1_000_000
FRAMES_PER_SECOND = 10.0


def view(seed: int, width: int, height: int, kind: str | None = None, *, close_up: bool = False) -> View:
    """The first view of scene `seed`; its kind is the seed's unless one of KINDS is given."""
    return next(views(seed, width, height, kind, close_up=close_up))


def views(
    seed: int,
    width: int,
    height: int,
    kind: str | None = None,
    *,
    close_up: bool = False,
    assets: Assets | None = None,
) -> Iterator[View]:
    """Views of scene `seed`, without end, from cameras here and there in it or, `close_up`, that look at one of its
    things from near, as people take pictures; with `assets` of another scene, which is partly made of them."""
    if kind is not None and kind not in KINDS:
        raise ValueError(f"expected a kind among {', '.join(KINDS)}; got {kind!r}")
    world = build(seed, kind, assets)
    renderer, rng = Renderer(world, assets), np.random.default_rng([seed, 3])
    while True:
        camera = Camera.from_fov(width, height, float(rng.uniform(*world.fov)))
        pose = (pose_before_a_thing if close_up else clear_pose)(world, renderer, rng, camera)
        yield renderer.view(pose, drawn_by_a_lens(camera, rng), seed=int(rng.integers(2**31)))


def sequence(
    seed: int = 0, frames: int = 60, width: int = 640, height: int = 480, kind: str = "room"
) -> Iterator[View]:
    """A camera that moves smoothly through a scene of one of KINDS: `frames` views, ten per second."""
    world = build(seed, kind)
    renderer, rng = Renderer(world), np.random.default_rng([seed, 4])
    camera = Camera.from_fov(width, height, 70.0)
    path = clear_path(world, renderer, rng, camera)
    for i in range(frames):
        yield renderer.view(path(i / max(1, frames - 1)), camera, seed=seed, stamp_s=i / FRAMES_PER_SECOND)
