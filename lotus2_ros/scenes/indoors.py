"""Worlds under a roof: a room, a desk in a room, a corridor, a hall."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lotus2_ros.scenes import things
from lotus2_ros.scenes.builder import Builder
from lotus2_ros.scenes.world import Light, Pose, World


def _shell(b: Builder, w: float, d: float, h: float, wall_tile: float = 1.2) -> None:
    """Floor, ceiling and four walls around the origin, with skirting, doors, windows and pictures."""
    t = 0.1
    b.add(
        "box",
        (w + 2 * t, d + 2 * t, t),
        (0, 0, -t / 2),
        b.surface("planks", "tiles", "checks", "cloth", "noise", "grain", "marble", "blotches", tile=1.6, plain=0.4),
    )
    b.add(
        "box",
        (w + 2 * t, d + 2 * t, t),
        (0, 0, h + t / 2),
        b.surface("noise", "tiles", plain=0.9, bright=(0.6, 1.0), tile=1.5),
    )
    paint = b.surface(
        "noise", "bricks", "stripes", "planks", "cloth", "blotches", tile=wall_tile, plain=0.75, bright=(0.35, 1.0)
    )
    skirting = b.surface("grain", plain=0.9)
    for side in range(4):
        wall = b.at(0, 0, 0, side * np.pi / 2)
        across, away = (w, d) if side % 2 == 0 else (d, w)
        surface = (
            paint
            if b.chance(0.8)
            else b.surface("bricks", "planks", "noise", "rectangles", tile=wall_tile, bright=(0.3, 1.0))
        )
        wall.add("box", (across, t, h), (0, away / 2 + t / 2, h / 2), surface)
        if b.chance(0.6):
            wall.add("box", (across, 0.03, 0.1), (0, away / 2 - 0.015, 0.05), skirting)
        _decorate(wall, across, away / 2, h)


def _decorate(wall: Builder, across: float, y: float, h: float) -> None:
    """On the wall at +y: a door, windows, pictures, a radiator, a board."""
    for _ in range(int(wall.rng.integers(0, 2 + int(across / 1.5)))):
        x = wall.uniform(-0.4, 0.4) * across
        y -= 0.006  # where two overlap, one is in front
        kind = wall.rng.integers(4)
        if kind == 0:
            door = wall.surface("grain", "planks", plain=0.8, tile=1.0)
            wall.add("box", (0.9, 0.05, 2.05), (x, y - 0.02, 1.02), door)
            wall.add("box", (1.02, 0.03, 2.12), (x, y - 0.01, 1.06), wall.surface("noise", plain=1.0))
        elif kind == 1:
            w, height = wall.uniform(0.6, 1.8), wall.uniform(0.6, 1.3)
            pane = wall.surface("noise", "blotches", tile=2.0, bright=(0.6, 1.0))
            wall.add(
                "box", (w, 0.02, height), (x, y - 0.01, 1.5), type(pane)(pane.pattern, pane.tile, pane.colors, 0, 0.8)
            )
            frame = wall.surface("noise", plain=1.0, bright=(0.5, 1))
            for offset in (-w / 2, 0, w / 2):
                wall.add("box", (0.06, 0.05, height), (x + offset, y - 0.025, 1.5), frame)
            for offset in (-height / 2, height / 2):
                wall.add("box", (w, 0.07, 0.06), (x, y - 0.03, 1.5 + offset), frame)
        elif kind == 2:
            w, height = wall.uniform(0.25, 1.2), wall.uniform(0.25, 0.9)
            wall.add(
                "box",
                (w, 0.04, height),
                (x, y - 0.02, min(1.6, h - 0.6)),
                wall.surface("print", "rectangles", "noise", "marble", tile=w),
            )
        else:
            w = wall.uniform(0.6, 1.4)
            wall.add(
                "box",
                (w, 0.12, 0.6),
                (x, y - 0.08, 0.45),
                wall.surface("stripes", plain=0.5, tile=0.5, bright=(0.6, 1)),
            )


def _furnish(b: Builder, w: float, d: float, count: int) -> None:
    """Most pieces stand with their back to a wall, some anywhere."""
    for _ in range(count):
        piece = things.FURNITURE[b.rng.integers(len(things.FURNITURE))]
        if b.chance(0.6):
            side = int(b.rng.integers(4))
            across, away = (w, d) if side % 2 == 0 else (d, w)
            piece(b.at(0, 0, 0, side * np.pi / 2).at(b.uniform(-0.42, 0.42) * across, away / 2 - b.uniform(0.35, 0.7)))
        else:
            piece(b.at(b.uniform(-0.4, 0.4) * w, b.uniform(-0.4, 0.4) * d, 0, b.uniform(-np.pi, np.pi)))


def _lamps(b: Builder, w: float, d: float, h: float) -> tuple[list[Light], np.ndarray]:
    lights = []
    for _ in range(int(b.rng.integers(1, 3))):
        position = np.array([b.uniform(-0.4, 0.4) * w, b.uniform(-0.4, 0.4) * d, h * b.uniform(0.75, 0.97)])
        tint = np.clip(np.array([1.0, 0.93, 0.85]) + b.rng.normal(0, 0.08, 3), 0.5, 1.2)
        lights.append(Light(position, tint * b.uniform(0.5, 1.2), b.uniform(1.5, 4.0)))
    return lights, np.clip(0.35 + b.rng.normal(0, 0.05, 3), 0.1, 0.6) * b.uniform(0.5, 1.3)


def _inside(
    w: float, d: float, heights: tuple[float, float], pitch: tuple[float, float]
) -> Callable[[np.random.Generator], Pose]:
    """Somewhere in the room, looking more or less across it."""

    def choose(rng: np.random.Generator) -> Pose:
        position = np.array([rng.uniform(-0.45, 0.45) * w, rng.uniform(-0.45, 0.45) * d, rng.uniform(*heights)])
        target = np.array([rng.uniform(-0.35, 0.35) * w, rng.uniform(-0.35, 0.35) * d])
        yaw = float(np.arctan2(*(target - position[:2])[::-1]))
        return Pose(position, yaw, float(np.radians(rng.uniform(*pitch))), float(np.radians(rng.normal(0, 2))))

    return choose


def room(b: Builder) -> World:
    w, d, h = b.uniform(3.0, 8.0), b.uniform(3.0, 7.0), b.uniform(2.3, 3.3)
    _shell(b, w, d, h)
    _furnish(b, w, d, int(b.rng.integers(4, 14)))
    things.scatter(b, w, d, 0.0, int(b.rng.integers(0, 8)), 0.3)
    lights, ambient = _lamps(b, w, d, h)
    return World("room", b.parts, lights, ambient, _inside(w, d, (0.3, 2.0), (-30, 8)), (50, 90), 0.4)


def desk(b: Builder) -> World:
    """A table top full of things, seen from near and above."""
    w, d, h = b.uniform(3.5, 7.0), b.uniform(3.5, 7.0), b.uniform(2.3, 3.3)
    _shell(b, w, d, h)
    _furnish(b, w, d, int(b.rng.integers(2, 8)))
    top, width, depth = b.uniform(0.4, 0.9), b.uniform(1.0, 2.2), b.uniform(0.7, 1.2)
    wood = b.surface("grain", "planks", "noise", "marble", "cloth", tile=1.0, plain=0.6)
    b.add("box", (width, depth, 0.05), (0, 0, top - 0.025), wood)
    b.add("box", (width * 0.8, depth * 0.7, top - 0.05), (0, 0, (top - 0.05) / 2), wood)
    if b.chance(0.35):
        things.tote(b.at(0, 0, top, b.uniform(-1, 1)))
    things.scatter(b, width, depth, top, int(b.rng.integers(3, 16)), b.uniform(0.1, 0.25))
    if b.chance(0.5):
        b.add(
            "box",
            (0.55, 0.05, 0.35),
            (b.uniform(-0.3, 0.3) * width, 0.3 * depth, top + 0.25),
            b.surface("rectangles", "print"),
        )
    for _ in range(int(b.rng.integers(0, 3))):
        yaw = b.uniform(-np.pi, np.pi)
        things.chair(b.at(0, 0, 0, yaw).at(b.uniform(-0.4, 0.4), b.uniform(-1.3, -0.9)))
    lights, ambient = _lamps(b, w, d, h)

    def choose(rng: np.random.Generator) -> Pose:
        pitch, distance, yaw = np.radians(rng.uniform(-65, -12)), rng.uniform(0.7, 1.8), rng.uniform(-np.pi, np.pi)
        target = np.array(
            [rng.uniform(-0.35, 0.35) * width, rng.uniform(-0.35, 0.35) * depth, top + rng.uniform(0, 0.2)]
        )
        back = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
        return Pose(target - distance * back, float(yaw), float(pitch), float(np.radians(rng.normal(0, 4))))

    return World("desk", b.parts, lights, ambient, choose, (45, 75), 0.2)


def corridor(b: Builder) -> World:
    length, w, h = b.uniform(7, 28), b.uniform(1.3, 3.2), b.uniform(2.2, 3.2)
    _shell(b, length, w, h)
    for _ in range(int(b.rng.integers(0, 7))):
        piece = (things.crates, things.plant, things.cupboard, things.chair, things.person, things.shelf)[
            b.rng.integers(6)
        ]
        side = int(b.rng.integers(2))
        piece(b.at(0, 0, 0, side * np.pi).at(b.uniform(-0.45, 0.45) * length, w / 2 - 0.3))
    for _ in range(int(b.rng.integers(2, 6))):  # arches
        if b.chance(0.4):
            x, frame = length * b.uniform(-0.4, 0.4), b.surface("noise", "bricks", plain=0.8)
            for side in (-1, 1):
                b.add("box", (0.25, 0.2, h), (x, side * (w / 2 - 0.1), h / 2), frame)
            b.add("box", (0.25, w, 0.3), (x, 0, h - 0.15), frame)
    lights, ambient = _lamps(b, length, w, h)

    def choose(rng: np.random.Generator) -> Pose:
        end = rng.choice((-1, 1))
        position = np.array([end * rng.uniform(0.1, 0.47) * length, rng.uniform(-0.3, 0.3) * w, rng.uniform(0.3, 1.9)])
        yaw = (np.pi if end > 0 else 0.0) + np.radians(rng.normal(0, 14))
        return Pose(position, float(yaw), float(np.radians(rng.uniform(-15, 6))), float(np.radians(rng.normal(0, 2))))

    return World("corridor", b.parts, lights, ambient, choose, (55, 90), 0.35)


def hall(b: Builder) -> World:
    w, d, h = b.uniform(9, 24), b.uniform(8, 18), b.uniform(3.5, 8)
    _shell(b, w, d, h, wall_tile=2.5)
    rack = b.surface("noise", plain=1.0)
    for y in np.arange(-d / 2 + 2.0, d / 2 - 1.5, b.uniform(2.8, 5.0)):
        if b.chance(0.6):
            continue
        levels, x = int(b.rng.integers(2, 4)), -w / 2 + 1.5
        while x < w / 2 - 3:
            for z in np.arange(levels) * 1.3:
                b.add("box", (2.4, 0.9, 0.08), (x + 1.2, y, z + 0.1), rack)
                if b.chance(0.8):
                    things.crates(b.at(x + b.uniform(0.5, 1.9), y, z + 0.14))
            for post in (0.0, 2.4):
                b.add("box", (0.08, 0.9, levels * 1.3), (x + post, y, levels * 0.65), rack)
            x += 2.5 if b.chance(0.85) else 5.0
    for _ in range(int(b.rng.integers(0, 7))):
        x, y = b.uniform(-0.4, 0.4) * w, b.uniform(-0.4, 0.4) * d
        b.add(
            "cylinder" if b.chance(0.5) else "box",
            (0.4, 0.4, h),
            (x, y, h / 2),
            b.surface("noise", "bricks", "stripes", plain=0.6),
        )
    _furnish(b, w * 0.8, d * 0.8, int(b.rng.integers(4, 12)))
    lights, ambient = _lamps(b, w, d, h)
    lights = [Light(light.position, light.color, light.reach * 2.5) for light in lights]
    return World("hall", b.parts, lights, ambient, _inside(w, d, (0.4, 2.2), (-16, 6)), (55, 90), 0.6)
