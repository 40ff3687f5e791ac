"""Worlds under the sky."""

from __future__ import annotations

import numpy as np

from lotus2_ros.scenes.builder import Builder
from lotus2_ros.scenes.street_things import STREET, car
from lotus2_ros.scenes.world import Light, Pose, World


def street(b: Builder) -> World:
    """Ground to the horizon, houses, parked and driving cars, trees, hills, sky."""
    road, walk = b.uniform(5, 12), b.uniform(1.5, 5)
    b.add("box", (900, 900, 0.2), (0, 0, -0.1), b.surface("noise", "blotches", tile=4.0, plain=0.6, bright=(0.15, 0.6)))
    b.add("box", (400, road, 0.02), (0, 0, 0.01), b.surface("noise", plain=0.9, tile=5.0, bright=(0.15, 0.5)))
    if b.chance(0.6):
        mark = b.surface("noise", plain=1.0, bright=(0.8, 1.0))
        for x in np.arange(-90, 90, 8.0):
            b.add("box", (3, 0.15, 0.01), (x, 0, 0.028), mark)
    for side in (-1, 1):
        _side(b, side, road, walk)
    for _ in range(int(b.rng.integers(0, 4))):
        car(b.at(b.uniform(-60, 80), b.uniform(-0.2, 0.2) * road, 0, b.uniform(-0.05, 0.05)))
    for _ in range(int(b.rng.integers(0, 6))):
        angle, far = b.uniform(-np.pi, np.pi), b.uniform(150, 380)
        b.add(
            "blob",
            (b.uniform(100, 300), b.uniform(100, 300), b.uniform(20, 120)),
            (far * np.cos(angle), far * np.sin(angle), 0),
            b.surface("noise", "blotches", tile=40, bright=(0.2, 0.6)),
        )
    light, sky = _sun_and_sky(b)

    def choose(rng: np.random.Generator) -> Pose:
        position = np.array([rng.uniform(-40, 30), rng.uniform(-0.45, 0.45) * road, rng.uniform(1.1, 2.1)])
        yaw = np.radians(rng.normal(0, 8 if rng.random() < 0.7 else 45)) + (np.pi if rng.random() < 0.3 else 0.0)
        return Pose(position, float(yaw), float(np.radians(rng.normal(-1.5, 3))), float(np.radians(rng.normal(0, 1))))

    return World("street", b.parts, [light], sky * 0.35, choose, (55, 95), 1.2, sky * b.uniform(0.7, 1.2))


def _side(b: Builder, side: int, road: float, walk: float) -> None:
    """Pavement, houses, walls and what stands before them; ``side`` is 1 on the left, -1 on the right."""
    edge = road / 2 + walk
    if b.chance(0.7):
        b.add(
            "box",
            (400, walk, 0.14),
            (0, side * (road / 2 + walk / 2), 0.07),
            b.surface("tiles", "noise", tile=1.5, plain=0.6),
        )
    x, built = -90.0, b.uniform(0.2, 1.0)
    while x < 100:
        length = b.uniform(6, 22)
        if b.chance(built):
            depth, h = b.uniform(6, 14), b.uniform(3, 16)
            y = side * (edge + depth / 2 + b.uniform(0, 3))
            b.add(
                "box",
                (length, depth, h),
                (x + length / 2, y, h / 2),
                b.surface("facade", "facade", "bricks", "planks", "noise", tile=b.uniform(5, 10), plain=0.2),
            )
        elif b.chance(0.5):
            h = b.uniform(0.8, 2.5)
            b.add(
                "box",
                (length, 0.6, h),
                (x + length / 2, side * (edge + 1), h / 2),
                b.surface("noise", "bricks", "blotches", "planks"),
            )
        x += length + (b.uniform(0, 8) if b.chance(0.4) else 0.0)
    for _ in range(int(b.rng.integers(3, 22))):
        thing = STREET[b.rng.integers(len(STREET))]
        off_road = thing is not car
        y = side * (road / 2 + (b.uniform(0.3, walk + 2) if off_road else -b.uniform(0.8, 1.2)))
        thing(b.at(b.uniform(-50, 70), y, 0.0, b.uniform(-0.1, 0.1)))


def _sun_and_sky(b: Builder) -> tuple[Light, np.ndarray]:
    """The sun, dimmed by clouds, and the colour of the sky."""
    sun, elevation = b.uniform(-np.pi, np.pi), np.radians(b.uniform(12, 70))
    direction = np.array([np.cos(elevation) * np.cos(sun), np.cos(elevation) * np.sin(sun), np.sin(elevation)])
    overcast = b.uniform(0, 1) ** 2
    light = Light(direction * 3000, np.array([1.0, 0.95, 0.85]) * b.uniform(0.9, 1.6) * (1 - 0.8 * overcast), 3000.0)
    sky = np.array([0.35, 0.55, 0.95]) * (1 - overcast) + overcast * np.array([0.8, 0.83, 0.88])
    return light, sky
