"""Things that stand in streets. Each is built in its own frame, standing on z = 0."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lotus2_ros.scenes.builder import Builder
from lotus2_ros.scenes.things import crates, person


def car(b: Builder) -> None:
    """Along x."""
    length, w, h = b.uniform(3.6, 4.9), b.uniform(1.65, 1.9), b.uniform(1.4, 1.9)
    paint = b.surface("noise", plain=1.0, tile=3.0)
    glass = b.surface("noise", plain=1.0, bright=(0.02, 0.3))
    tyre = b.surface("noise", plain=1.0, bright=(0.02, 0.15))
    b.add("box", (length, w, h * 0.42), (0, 0, h * 0.42), paint)
    b.add("box", (length * 0.55, w * 0.88, h * 0.38), (-0.05 * length, 0, h * 0.8), glass)
    b.add("box", (length * 0.48, w * 0.86, 0.05), (-0.05 * length, 0, h), paint)
    upright = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    for x in (-0.32, 0.32):
        for y in (-0.48, 0.48):
            b.add("cylinder", (0.64, 0.64, 0.2), (x * length, y * w, 0.32), tyre, rotation=upright)


def tree(b: Builder) -> None:
    h = b.uniform(3, 10)
    b.add(
        "cylinder",
        (0.06 * h**0.8, 0.06 * h**0.8, h * 0.7),
        (0, 0, h * 0.35),
        b.surface("grain", "noise", tile=1, bright=(0.1, 0.4)),
    )
    leaves = b.surface("noise", "blotches", tile=b.uniform(0.5, 1.5), plain=0.2, bright=(0.08, 0.5))
    if b.chance(0.25):
        b.add("cone", (h * 0.45, h * 0.45, h * 0.8), (0, 0, h * 0.6), leaves)
        return
    for _ in range(int(b.rng.integers(4, 9))):
        s = h * b.uniform(0.25, 0.5)
        b.add("blob", (s, s, s * 0.9), (*b.rng.normal(0, 0.12 * h, 2), h * b.uniform(0.55, 0.95)), leaves)


def pole(b: Builder) -> None:
    h = b.uniform(2, 8)
    b.add("cylinder", (0.14, 0.14, h), (0, 0, h / 2), b.surface("noise", plain=0.9))
    if b.chance(0.6):
        b.add("box", (0.7, 0.05, 0.7), (0, 0, h - 0.4), b.surface("rectangles", "print", "stripes", tile=0.8))


STREET: tuple[Callable[[Builder], None], ...] = (car, car, car, tree, tree, pole, person, crates)
