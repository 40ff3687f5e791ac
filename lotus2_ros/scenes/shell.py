"""The common parts of indoor worlds: walls, pictures and shelves on them, furniture, lamps, camera poses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lotus2_ros.scenes import thin, things
from lotus2_ros.scenes.builder import Builder
from lotus2_ros.scenes.small import scatter
from lotus2_ros.scenes.world import Light, Pose


def shell(b: Builder, w: float, d: float, h: float, wall_tile: float = 1.2) -> None:
    """Floor, ceiling and four walls around the origin, with skirting, doors, windows and pictures."""
    t = 0.1
    floor = b.surface("planks", "tiles", "checks", "cloth", "noise", "grain", "marble", "blotches", "gradient",
                      tile=1.6, plain=0.45)  # fmt: skip
    b.add("box", (w + 2 * t, d + 2 * t, t), (0, 0, -t / 2), b.polished(floor) if b.chance(0.25) else floor)
    ceiling = b.surface("noise", "tiles", plain=0.9, bright=(0.6, 1.0), tile=1.5)
    b.add("box", (w + 2 * t, d + 2 * t, t), (0, 0, h + t / 2), ceiling)
    walls = ("noise", "gradient", "bricks", "stripes", "planks", "cloth", "blotches")
    paint = b.surface(*walls, tile=wall_tile, plain=0.75, bright=(0.3, 1.0))
    paint = b.dull(paint) if b.chance(0.4) else paint
    skirting = b.surface("grain", plain=0.9)
    for side in range(4):
        wall = b.at(0, 0, 0, side * np.pi / 2)
        across, away = (w, d) if side % 2 == 0 else (d, w)
        surface = paint if b.chance(0.8) else b.surface(*walls, "rectangles", tile=wall_tile, bright=(0.3, 1.0))
        wall.add("box", (across, t, h), (0, away / 2 + t / 2, h / 2), surface)
        if b.chance(0.6):
            wall.add("box", (across, 0.03, 0.1), (0, away / 2 - 0.015, 0.05), skirting)
        y = away / 2
        for _ in range(b.integer(0, 2 + int(across / 1.5))):
            y -= 0.006  # where two overlap, one is in front
            _HANGINGS[b.integer(0, len(_HANGINGS))](wall.at(b.uniform(-0.4, 0.4) * across, y), h)
        if b.chance(0.25):
            _pipes(wall, across, away / 2, h)


def _door(b: Builder, h: float) -> None:
    b.add("box", (0.9, 0.05, 2.05), (0, -0.02, 1.02), b.surface("grain", "planks", plain=0.8, tile=1.0))
    b.add("box", (1.02, 0.03, 2.12), (0, -0.01, 1.06), b.paint())
    b.tube(((0.36, -0.05, 1.0), (0.36, -0.1, 1.0), (0.25, -0.1, 1.0)), 0.012, b.paint(0.3, 0.9), sides=6)


def _window(b: Builder, h: float) -> None:
    w, height = b.uniform(0.6, 2.2), b.uniform(0.6, 1.4)
    outside = b.surface("noise", "blotches", "picture", "gradient", tile=2.0, bright=(0.6, 1.0))
    b.add("box", (w, 0.02, height), (0, -0.01, 1.5), replace(outside, glow=b.uniform(0.4, 3.0), mirror=0.04))
    frame = b.paint(0.3, 1)
    for x in np.linspace(-w / 2, w / 2, b.integer(2, 5)):
        b.add("box", (0.06, 0.05, height), (x, -0.025, 1.5), frame)
    for z in (-height / 2, height / 2):
        b.add("box", (w, 0.07, 0.06), (0, -0.03, 1.5 + z), frame)
    if b.chance(0.3):  # curtains
        cloth = b.surface("cloth", "stripes", plain=0.8)
        for x in (-0.55, 0.55):
            waves = np.linspace(0, 1, 9)
            path = np.c_[(x + 0.25 * (waves - 0.5)) * w, -0.1 + 0.03 * np.sin(20 * waves), 0 * waves]
            for point in path:
                b.add("cylinder", (w / 28, 0.07, height + 0.4), (*point[:2], 1.5), cloth)


def _picture(b: Builder, h: float) -> None:
    w, height, z = b.uniform(0.25, 1.4), b.uniform(0.25, 0.9), min(1.6, h - 0.6)
    b.add("box", (w, 0.04, height), (0, -0.02, z), b.surface("print", "text", "picture", "rectangles", tile=w))
    if b.chance(0.5):
        corners = [(x * w / 2, -0.03, z + y * height / 2) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        b.tube(corners, 0.025, b.paint(), sides=4, closed=True)


def _radiator(b: Builder, h: float) -> None:
    w = b.uniform(0.6, 1.4)
    metal = b.paint(0.6, 1)
    for x in np.arange(-w / 2, w / 2, 0.08):
        b.add("box", (0.06, 0.12, 0.6), (x, -0.08, 0.45), metal)


def _board(b: Builder, h: float) -> None:
    """A shelf on the wall, with things on it."""
    w, z = b.uniform(0.5, 1.5), b.uniform(1.0, min(1.9, h - 0.4))
    b.add("box", (w, 0.25, 0.025), (0, -0.125, z), b.surface("grain", plain=0.8))
    scatter(b.at(0, -0.13), w, 0.2, z + 0.013, b.integer(1, 8), 0.13)


def _mirror(b: Builder, h: float) -> None:
    if not b.chance(0.35):
        return
    w, height = b.uniform(0.4, 1.4), b.uniform(0.5, 1.4)
    b.add("box", (w + 0.06, 0.02, height + 0.06), (0, -0.01, 1.3), b.paint())
    b.add("sheet", (w, 1.0, height), (0, -0.025, 1.3), b.looking_glass())


_HANGINGS: tuple[Callable[[Builder, float], None], ...] = (
    _door, _window, _window, _picture, _picture, _radiator, _board, _mirror,
)  # fmt: skip


def _pipes(b: Builder, across: float, y: float, h: float) -> None:
    metal, radius, z = b.paint(), b.uniform(0.015, 0.08), b.uniform(0.1, h - 0.1)
    b.tube(((-across / 2, y - 1.5 * radius, z), (across / 2, y - 1.5 * radius, z)), radius, metal)
    x = b.uniform(-0.4, 0.4) * across
    b.tube(((x, y - 2 * radius, 0), (x, y - 2 * radius, h)), radius, metal)


def furnish(b: Builder, w: float, d: float, count: int) -> None:
    """Most pieces stand with their back to a wall, some anywhere; a cable or a hard case now and then."""
    for _ in range(count):
        piece = things.piece_of_furniture(b)
        if b.chance(0.6):
            side = b.integer(0, 4)
            across, away = (w, d) if side % 2 == 0 else (d, w)
            piece(b.at(0, 0, 0, side * np.pi / 2).at(b.uniform(-0.42, 0.42) * across, away / 2 - b.uniform(0.35, 0.7)))
        else:
            piece(b.at(b.uniform(-0.4, 0.4) * w, b.uniform(-0.4, 0.4) * d, 0, b.uniform(-np.pi, np.pi)))
    if b.chance(0.12):
        hard = things.DECEPTIVE[b.integer(0, len(things.DECEPTIVE))]
        hard(b.at(b.uniform(-0.3, 0.3) * w, b.uniform(-0.3, 0.3) * d, 0, b.uniform(-np.pi, np.pi)))


def hanging(b: Builder, w: float, d: float, h: float, count: int) -> None:
    """Cables between the walls under the ceiling, and lamps on cords."""
    for _ in range(count):
        y, radius = b.uniform(-0.45, 0.45) * d, b.uniform(0.005, 0.02)
        if b.chance(0.5):
            thin.hang(
                b, (-w / 2, y, h * 0.95), (w / 2, b.uniform(-0.45, 0.45) * d, h * 0.9), 0.1 * h, radius, b.paint()
            )
        else:
            x, z = b.uniform(-0.4, 0.4) * w, h - b.uniform(0.3, 1.0)
            b.tube(((x, y, h), (x, y, z)), 0.006, b.paint(), sides=5)
            shade = replace(b.paint(0.6, 1.0), glow=b.uniform(0, 1.5))
            b.add(str(b.rng.choice(("cone", "ball", "cylinder"))), (0.35, 0.35, 0.25), (x, y, z), shade)


def lamps(b: Builder, w: float, d: float, h: float) -> tuple[list[Light], np.ndarray]:
    """Lights and the ambient: warm or cold, of a dim or a bright room, from the ceiling or from a window."""
    lights = []
    for _ in range(b.integer(1, 4)):
        position = np.array([b.uniform(-0.4, 0.4) * w, b.uniform(-0.4, 0.4) * d, h * b.uniform(0.6, 0.97)])
        tint = np.clip(np.array([1.0, 0.93, 0.85]) + b.rng.normal(0, 0.3 if b.chance(0.15) else 0.08, 3), 0.3, 1.3)
        lights.append(Light(position, tint * b.uniform(0.3, 1.2), b.uniform(1.2, 4.0)))
    if b.chance(0.3):
        side = np.array([0.48 * w * b.rng.choice((-1, 1)), b.uniform(-0.4, 0.4) * d, b.uniform(1.2, 2.0)])
        lights = [*lights[:1], Light(side, np.array([0.9, 0.97, 1.1]) * b.uniform(1.5, 4.0), b.uniform(2.0, 5.0))]
    return lights, np.clip(0.35 + b.rng.normal(0, 0.05, 3), 0.1, 0.6) * b.uniform(0.2, 1.4)


def inside(w: float, d: float, pitch: tuple[float, float]) -> Callable[[np.random.Generator], Pose]:
    """Somewhere in it, as high as a robot's or a person's eyes, looking across; some look steeply down."""

    def choose(rng: np.random.Generator) -> Pose:
        height = rng.uniform(0.12, 0.7) if rng.random() < 0.35 else rng.uniform(0.7, 2.1)
        position = np.array([rng.uniform(-0.45, 0.45) * w, rng.uniform(-0.45, 0.45) * d, height])
        target = np.array([rng.uniform(-0.35, 0.35) * w, rng.uniform(-0.35, 0.35) * d])
        yaw = float(np.arctan2(*(target - position[:2])[::-1]))
        steep = height > 0.7 and rng.random() < 0.15
        tilt = rng.uniform(-70, -30) if steep else rng.uniform(*pitch) * (1 if height > 0.7 else 0.5)
        return Pose(position, yaw, float(np.radians(tilt)), float(np.radians(rng.normal(0, 2.5))))

    return choose
