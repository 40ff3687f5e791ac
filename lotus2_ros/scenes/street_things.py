"""Things that stand in streets. Each is built in its own frame, standing on z = 0."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lotus2_ros.scenes.builder import Builder, Surface, turn_x
from lotus2_ros.scenes.curved import bicycle, motorcycle
from lotus2_ros.scenes.things import crates, person


def vehicle(b: Builder) -> None:
    kind = b.rng.random()
    (_car if kind < 0.75 else _van if kind < 0.92 else _lorry)(b)


def _car(b: Builder) -> None:
    """Along x: a rounded body, a cabin that narrows upward, lights."""
    length, w, h = b.uniform(3.6, 4.9), b.uniform(1.65, 1.95), b.uniform(1.35, 1.85)
    paint, glass = b.polished(b.paint(0.02, 0.95)), b.polished(b.paint(0.02, 0.25))
    b.add("box", (length, w, h * 0.38), (0, 0, h * 0.4), paint)
    for x, share, wide in ((-0.05, 0.62, 0.92), (-0.07, 0.52, 0.85), (-0.08, 0.42, 0.78)):
        z = h * (0.66 if share > 0.6 else 0.78 if share > 0.5 else 0.9)
        b.add("box", (length * share, w * wide, h * 0.14), (x * length, 0, z), glass)
    b.add("box", (length * 0.42, w * 0.78, 0.04), (-0.08 * length, 0, h * 0.98), paint)
    lamp, red = b.paint(0.7, 1.0), b.paint(0.2, 0.6)
    for y in (-0.36, 0.36):
        b.add("ball", (0.1, 0.3, 0.16), (length / 2, y * w, h * 0.45), lamp)
        b.add("box", (0.06, 0.28, 0.14), (-length / 2, y * w, h * 0.5), red)
    b.add("box", (0.03, 0.5, 0.12), (-length / 2 - 0.01, 0, h * 0.35), b.surface("text", tile=0.5))
    _wheels(b, length, w, 0.32)


def _van(b: Builder) -> None:
    length, w, h = b.uniform(4.6, 6.0), b.uniform(1.9, 2.1), b.uniform(1.9, 2.7)
    paint, glass = b.paint(), b.polished(b.paint(0.02, 0.25))
    b.add("box", (length * 0.82, w, h * 0.82), (-0.09 * length, 0, h * 0.57), paint)
    b.add("box", (length, w * 0.98, h * 0.35), (0, 0, h * 0.33), paint)
    b.add("box", (length * 0.06, w * 0.85, h * 0.3), (0.32 * length, 0, h * 0.7), glass)
    b.add("box", (0.03, w * 0.8, h * 0.28), (-0.5 * length, 0, h * 0.72), glass)
    _wheels(b, length, w, 0.34)


def _lorry(b: Builder) -> None:
    length, w, h = b.uniform(6.5, 11), 2.4, b.uniform(2.8, 3.8)
    b.add("box", (length * 0.75, w, h - 0.9), (-0.125 * length, 0, 0.9 + (h - 0.9) / 2), b.surface("noise", "print",
          "text", tile=3.0, plain=0.8))  # fmt: skip
    b.add("box", (length * 0.2, w * 0.95, h * 0.7), (0.38 * length, 0, 0.4 + h * 0.35), b.paint())
    b.add("box", (0.04, w * 0.85, h * 0.25), (0.485 * length, 0, h * 0.55), b.paint(0.02, 0.25))
    b.add("box", (length * 0.9, w * 0.7, 0.3), (0, 0, 0.75), b.paint(0.02, 0.3))
    _wheels(b, length, w, 0.48)


def _wheels(b: Builder, length: float, w: float, r: float) -> None:
    tyre, hub = b.paint(0.02, 0.15), b.paint(0.3, 0.9)
    for x in (-0.32, 0.32):
        for y in (-0.47, 0.47):
            b.add("cylinder", (2 * r, 2 * r, 0.2), (x * length, y * w, r), tyre, rotation=turn_x(np.pi / 2))
            b.add("cylinder", (1.1 * r, 1.1 * r, 0.22), (x * length, y * w, r), hub, rotation=turn_x(np.pi / 2))


def tree(b: Builder) -> None:
    h = b.uniform(3, 11)
    bark: Surface = b.surface("grain", "noise", tile=1, bright=(0.1, 0.4))
    b.tube(((0, 0, 0), (*b.rng.normal(0, 0.02 * h, 2), h * 0.7)), np.array([1.0, 0.5]) * 0.04 * h**0.8, bark, sides=7)
    leaves = b.leaves(b.uniform(0.6, 2.0))
    kind = b.rng.random()
    if kind < 0.15:
        b.add("cone", (h * 0.45, h * 0.45, h * 0.85), (0, 0, h * 0.58), leaves)
    elif kind < 0.25:  # bare
        for _ in range(b.integer(6, 14)):
            start, reach = np.array([0, 0, h * b.uniform(0.3, 0.68)]), b.rng.normal(0, 0.18, 3) * h
            b.tube((start, start + reach * (1, 1, 0) + (0, 0, abs(reach[2]))), 0.008 * h, bark, sides=5)
    else:
        shape = "leaves" if kind < 0.6 else "blob"
        if shape == "leaves":
            b.add("blob", (h * 0.4, h * 0.4, h * 0.4), (0, 0, h * 0.72), leaves)
        for _ in range(b.integer(2, 5) if shape == "leaves" else b.integer(4, 10)):
            s = h * b.uniform(0.25, 0.5) * (1.3 if shape == "leaves" else 1)
            b.add(shape, (s, s, s * 0.9), (*b.rng.normal(0, 0.11 * h, 2), h * b.uniform(0.5, 0.92)), leaves)


def bush(b: Builder) -> None:
    s, leaves = b.uniform(0.5, 2.0), b.leaves(0.6)
    b.add("blob" if b.chance(0.5) else "leaves", (s, s, s), (0, 0, 0.4 * s), leaves)


def pole(b: Builder) -> None:
    """Of a lamp, a sign or a signal."""
    h, metal, kind = b.uniform(2, 8), b.paint(), b.rng.random()
    b.tube(((0, 0, 0), (0, 0, h)), b.uniform(0.03, 0.1), metal)
    if kind < 0.4:
        sign = b.surface("rectangles", "print", "text", "stripes", tile=0.8)
        b.add("box", (0.04, b.uniform(0.4, 0.9), b.uniform(0.4, 0.9)), (0, 0, h - 0.4), sign)
    elif kind < 0.7:  # an arm over the road
        b.tube(((0, 0, h), (0, 1.2, h + 0.5), (0, 2.4, h + 0.6)), 0.05, metal, sides=6)
        b.add("ball", (0.3, 0.8, 0.15), (0, 2.5, h + 0.55), metal)
    elif kind < 0.85:
        b.add("box", (0.25, 0.3, 0.9), (0, 0, h - 0.4), b.paint(0.02, 0.3))


def bollards(b: Builder) -> None:
    paint, h = b.surface("stripes", "noise", plain=0.7, tile=0.5), b.uniform(0.6, 1.1)
    for i in range(b.integer(1, 6)):
        b.add("cylinder" if b.chance(0.8) else "cone", (0.2, 0.2, h), (1.5 * i, 0, h / 2), paint)


STREET: tuple[Callable[[Builder], None], ...] = (
    vehicle, vehicle, vehicle, tree, tree, bush, pole, pole, person, person, crates, bollards, bicycle, motorcycle,
)  # fmt: skip
