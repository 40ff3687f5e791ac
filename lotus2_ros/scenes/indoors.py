"""Rooms: a furnished one, a desk or a bin seen from near, a corridor."""

from __future__ import annotations

import numpy as np

from lotus2_ros.scenes import curved, thin, things
from lotus2_ros.scenes.builder import Builder
from lotus2_ros.scenes.shell import furnish, hanging, inside, lamps, shell
from lotus2_ros.scenes.small import heap, scatter
from lotus2_ros.scenes.world import Pose, World


def room(b: Builder) -> World:
    """From nearly empty to crammed, with clutter on its floor."""
    w, d, h = b.uniform(2.5, 9.0), b.uniform(2.5, 8.0), b.uniform(2.3, 3.4)
    shell(b, w, d, h)
    furnish(b, w, d, b.integer(3, 9 + int(w * d / 3)))
    scatter(b, w, d, 0.0, b.integer(0, 6), 0.3)
    if b.chance(0.3):
        middle = b.at(b.uniform(-0.25, 0.25) * w, b.uniform(-0.25, 0.25) * d)
        scatter(middle, 2.0, 2.0, 0.0, b.integer(8, 25), b.uniform(0.12, 0.3))
    hanging(b, w, d, h, b.integer(0, 4))
    lights, ambient = lamps(b, w, d, h)
    return World("room", b.parts, lights, ambient, inside(w, d, (-32, 8)), (45, 95), 0.4)


def desk(b: Builder) -> World:
    """A table top or a bin full of things, seen from near and above."""
    w, d, h = b.uniform(3.5, 8.0), b.uniform(3.5, 8.0), b.uniform(2.3, 3.3)
    shell(b, w, d, h)
    furnish(b, w, d, b.integer(3, 11))
    scatter(b, w, d, 0.0, b.integer(0, 5), 0.3)
    top, width, depth = b.uniform(0.35, 0.95), b.uniform(0.8, 2.4), b.uniform(0.6, 1.4)
    binned = b.chance(0.2)
    if binned:
        width, depth = _bin(b, top)
    else:
        _top(b, width, depth, top)
    for _ in range(b.integer(0, 3)):
        seat = things.chair if b.chance(0.5) else thin.office_chair
        seat(b.at(0, 0, 0, b.uniform(-np.pi, np.pi)).at(b.uniform(-0.5, 0.5), -depth / 2 - b.uniform(0.2, 0.7)))
    lights, ambient = lamps(b, w, d, h)
    steepest, flattest = (-88, -40) if binned else (-68, -10)

    def choose(rng: np.random.Generator) -> Pose:
        pitch, yaw = np.radians(rng.uniform(steepest, flattest)), rng.uniform(-np.pi, np.pi)
        distance = rng.uniform(0.35, 1.2) if rng.random() < 0.4 else rng.uniform(0.9, 2.6)
        place = rng.uniform(-0.4, 0.4, 2) * (width, depth)
        target = np.array([*place, top + rng.uniform(0, 0.2)])
        back = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
        return Pose(target - distance * back, float(yaw), float(pitch), float(np.radians(rng.normal(0, 5))))

    return World("desk", b.parts, lights, ambient, choose, (40, 80), 0.15)


def _top(b: Builder, width: float, depth: float, top: float) -> None:
    """A table with a screen, a lamp, a partition behind, and things all over it."""
    wood = b.surface("grain", "planks", "noise", "marble", "cloth", "gradient", tile=1.0, plain=0.65)
    b.add("box", (width, depth, 0.04), (0, 0, top - 0.02), b.polished(wood) if b.chance(0.2) else wood)
    things.legs(b, width, depth, top - 0.04, wood)
    if b.chance(0.2):
        things.tote(b.at(0, 0, top, b.uniform(-1, 1)))
    if b.chance(0.25):
        panel = b.surface("cloth", "noise", plain=0.8)
        b.add("box", (width, 0.04, b.uniform(0.3, 0.8)), (0, depth / 2, top + 0.15), panel)
    sizes = b.uniform(0.07, 0.25)
    scatter(b, width, depth, top, b.integer(2, 12 + int(10 * width * depth)), sizes)
    if b.chance(0.2):
        heap(b.at(b.uniform(-0.2, 0.2) * width, 0), 0.4, 0.4, top, b.integer(4, 10), sizes)
    for piece, probability in ((things.screen, 0.55), (thin.desk_lamp, 0.25), (curved.globe, 0.15)):
        if b.chance(probability):
            piece(b.at(b.uniform(-0.4, 0.4) * width, b.uniform(0, 0.35) * depth, top, b.uniform(-0.7, 0.7)))


def _bin(b: Builder, top: float) -> tuple[float, float]:
    """An open box full of things, with its floor at `top`, on a table; its width and depth."""
    w, d, h = b.uniform(0.35, 0.9), b.uniform(0.3, 0.6), b.uniform(0.1, 0.35)
    plastic = b.surface("noise", "grain", "gradient", plain=0.9)
    b.add("box", (1.8, 1.2, 0.04), (0, 0, top - 0.03), b.surface(plain=0.5))
    things.legs(b, 1.8, 1.2, top - 0.05, plastic)
    b.add("box", (w, d, 0.02), (0, 0, top), plastic)
    for side in (-1, 1):
        b.add("box", (0.03, d, h), (side * w / 2, 0, top + h / 2), plastic)
        b.add("box", (w, 0.03, h), (0, side * d / 2, top + h / 2), plastic)
    heap(b, w, d, top + 0.01, b.integer(3, 18), b.uniform(0.12, 0.3))
    return w, d


def corridor(b: Builder) -> World:
    """Long and narrow, with doors, arches, rails, pipes under the ceiling, and what stands along its sides."""
    length, w, h = b.uniform(6, 30), b.uniform(1.2, 3.4), b.uniform(2.2, 3.4)
    shell(b, length, w, h)
    pieces = (things.crates, things.plant, things.cupboard, things.chair, things.person, things.shelf, things.tote,
              thin.ladder, thin.stool, curved.big_vase, curved.bicycle)  # fmt: skip
    for _ in range(b.integer(0, 9)):
        piece = pieces[b.integer(0, len(pieces))]
        place = b.at(0, 0, 0, b.integer(0, 2) * np.pi).at(b.uniform(-0.45, 0.45) * length, w / 2 - 0.3)
        if not place.model(things.MODELS, things.MODEL_SIZES):
            piece(place)
    for _ in range(b.integer(0, 4)):
        across = b.at(length * b.uniform(-0.4, 0.4), 0, 0, np.pi / 2)
        stone = b.surface("noise", "bricks", plain=0.8)
        if b.chance(0.5):
            curved.arch(across, w, h - w / 2 if h - w / 2 > 1 else 1.0, b.uniform(0.08, 0.2), stone)
        else:
            across.tube(((-w / 2, 0, 0), (-w / 2, 0, h), (w / 2, 0, h), (w / 2, 0, 0)), 0.15, stone, sides=4)
    for _ in range(b.integer(0, 5)):  # pipes
        y, z, radius = b.uniform(-0.45, 0.45) * w, h - b.uniform(0.06, 0.3), b.uniform(0.015, 0.08)
        b.tube(((-length / 2, y, z), (length / 2, y, z)), radius, b.paint())
    if b.chance(0.3):
        thin.railing(b.at(0, w / 2 - 0.08), min(length, 12.0), 0.95)
    if b.chance(0.1):
        things.pane(b.at(length * b.uniform(-0.2, 0.2), 0, 0, np.pi / 2))
    scatter(b, length * 0.8, w * 0.8, 0.0, b.integer(0, 6), 0.25)
    lights, ambient = lamps(b, length, w, h)

    def choose(rng: np.random.Generator) -> Pose:
        end = rng.choice((-1, 1))
        position = np.array([end * rng.uniform(0, 0.47) * length, rng.uniform(-0.35, 0.35) * w, rng.uniform(0.12, 2)])
        yaw = (np.pi if end > 0 else 0.0) + np.radians(rng.normal(0, 14 if rng.random() < 0.8 else 50))
        pitch = np.radians(rng.uniform(-25, 8))
        return Pose(position, float(yaw), float(pitch), float(np.radians(rng.normal(0, 2))))

    return World("corridor", b.parts, lights, ambient, choose, (50, 95), 0.35)
