"""Things that lie on tables, shelves and floors. Each is built in its own frame, standing on z = 0."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lotus2_ros.scenes.builder import Builder, Surface, any_rotation, turn_x

# Where there are assets: the share of models among small things, whatever size they have in the world, meters.
MODELS, MODEL_SIZES = 0.35, (0.03, 3.0)


def small_thing(b: Builder, size: float) -> None:
    """A book, box, cup, ball, bottle, bag, cable, tape or stack, about `size` across."""
    s = size * b.uniform(0.4, 1.5)
    if b.model(MODELS, MODEL_SIZES, 1.5 * s):
        return
    surface = b.surface("print", "text", "picture", "noise", "stripes", "dots", "checks", "cloth", "gradient",
                        tile=2 * s, plain=0.45)  # fmt: skip
    _THINGS[b.integer(0, len(_THINGS))](b, s, surface)


def scatter(b: Builder, width: float, depth: float, z: float, count: int, size: float) -> None:
    """Small things on a flat top of width x depth at height z."""
    for _ in range(count):
        small_thing(b.at(b.uniform(-0.45, 0.45) * width, b.uniform(-0.45, 0.45) * depth, z, b.uniform(-3, 3)), size)


def heap(b: Builder, width: float, depth: float, z: float, count: int, size: float) -> None:
    """Boxes, bags and tubes that lie on one another, any way up."""
    for i in range(count):
        s = size * b.uniform(0.5, 1.3)
        shape = str(b.rng.choice(("box", "box", "box", "blob", "cylinder", "ball", "vase")))
        w, d, h = s * b.rng.uniform(0.35, 1.0, 3) * (1, 1, 0.5 if b.chance(0.5) else 1)
        tilt = turn_x(b.rng.normal(0, 0.3)) if b.chance(0.6) else any_rotation(b.rng)
        lying = b.at(b.uniform(-0.4, 0.4) * width, b.uniform(-0.4, 0.4) * depth, z + s * 0.4 * i / count)
        surface = b.surface("print", "text", "picture", "stripes", "noise", tile=1.5 * s, plain=0.3)
        lying.at(0, 0, 0, b.uniform(-3, 3)).add(shape, (w, d, h), (0, 0, h / 2), surface, rotation=tilt)


def _box(b: Builder, s: float, surface: Surface) -> None:
    w, d, h = s * b.rng.uniform(0.3, 1.2, 3)
    b.add("box", (w, d, h), (0, 0, h / 2), surface)


def _book(b: Builder, s: float, surface: Surface) -> None:
    h = s * b.uniform(0.01, 0.2)
    b.add("box", (s, s * b.uniform(0.6, 0.8), h), (0, 0, h / 2), surface)


def _can(b: Builder, s: float, surface: Surface) -> None:
    h = s * b.uniform(0.6, 1.8)
    b.add("cylinder", (s * 0.6, s * 0.6, h), (0, 0, h / 2), surface)


def _ball(b: Builder, s: float, surface: Surface) -> None:
    b.add("ball", (s, s * b.uniform(0.6, 1), s * 0.9), (0, 0, s * 0.45), surface)


def _bottle(b: Builder, s: float, surface: Surface) -> None:
    h = s * b.uniform(1.2, 2.2)
    b.add("cylinder", (s * 0.5, s * 0.5, h * 0.6), (0, 0, h * 0.3), surface)
    b.add("cone", (s * 0.5, s * 0.5, h * 0.35), (0, 0, h * 0.775), surface)
    b.add("cylinder", (s * 0.16, s * 0.16, h * 0.3), (0, 0, h * 0.85), b.paint())


def _mug(b: Builder, s: float, surface: Surface) -> None:
    h = s * b.uniform(0.8, 1.1)
    b.add("cylinder", (s * 0.7, s * 0.7, h), (0, 0, h / 2), surface)
    b.add("cylinder", (s * 0.6, s * 0.6, 0.01), (0, 0, h), b.paint(0.05, 0.4))
    b.ring(h * 0.28, s * 0.05, (s * 0.4, 0, h / 2), surface, sides=6)


def _vase(b: Builder, s: float, surface: Surface) -> None:
    h = s * b.uniform(0.8, 1.8)
    b.add("vase", (s, s, h), (0, 0, h / 2), surface)


def _bag(b: Builder, s: float, surface: Surface) -> None:
    h = s * b.uniform(0.4, 1.2)
    b.add("blob", (s, s * b.uniform(0.5, 1), h), (0, 0, h * 0.4), surface)


def _stack(b: Builder, s: float, surface: Surface) -> None:
    z = 0.0
    for _ in range(b.integer(2, 6)):
        h, size = s * b.uniform(0.08, 0.35), (s * b.uniform(0.7, 1), s * b.uniform(0.5, 0.8))
        layer = b.surface("print", "text", "rectangles", tile=s)
        b.at(0, 0, 0, b.uniform(-0.3, 0.3)).add("box", (*size, h), (0, 0, z + h / 2), layer)
        z += h


def _askew(b: Builder, s: float, surface: Surface) -> None:
    b.add("box", (s, s * 0.1, s * 0.7), (0, 0, s * 0.4), surface, rotation=any_rotation(b.rng))


def _tape(b: Builder, s: float, surface: Surface) -> None:
    thick = s * b.uniform(0.08, 0.2)
    flat = b.turned(turn_x(np.pi / 2), z=thick) if b.chance(0.7) else b.at(0, 0, s * 0.5)
    flat.ring(s * 0.5 - thick, thick, (0, 0, 0), surface, sides=4 if b.chance(0.5) else 8)


def _cable(b: Builder, s: float, surface: Surface) -> None:
    """Lies in curves."""
    turns = np.linspace(0, b.uniform(1.5, 9), 24)
    radius = b.uniform(0.003, 0.008)
    x, y = np.cumsum(s * 0.4 * np.c_[np.cos(1.3 * turns), np.sin(turns + np.sin(2 * turns))].T * 0.4, axis=1)
    b.tube(np.c_[x, y, np.full(24, radius)], radius, b.paint(0.02, 0.8), sides=6)


def _keyboard(b: Builder, s: float, surface: Surface) -> None:
    keys = b.surface("tiles", tile=0.12, plain=0.6)
    b.add("box", (0.44, 0.15, 0.02), (0, 0, 0.012), keys, rotation=turn_x(0.06))


def _pen(b: Builder, s: float, surface: Surface) -> None:
    length, radius = s * b.uniform(0.8, 2), s * b.uniform(0.03, 0.08)
    b.tube(((-length / 2, 0, radius), (length / 2, 0, radius)), radius, surface)


_THINGS: tuple[Callable[[Builder, float, Surface], None], ...] = (
    _box, _box, _book, _can, _ball, _bottle, _mug, _vase, _bag, _stack, _askew, _tape, _cable, _keyboard, _pen,
)  # fmt: skip
