"""Curved and composite things: tyres, arches, bicycles, motorcycles. In their own frames, standing on z = 0."""

from __future__ import annotations

import numpy as np

from lotus2_ros.scenes.builder import Builder, Surface, turn_x


def big_vase(b: Builder) -> None:
    h, w = b.uniform(0.4, 1.2), b.uniform(0.3, 0.7)
    b.add("vase", (w, w, h), (0, 0, h / 2), b.surface("noise", "stripes", "marble", "gradient", plain=0.6))
    if b.chance(0.5):
        b.add("leaves", (2 * w, 2 * w, 0.8 * h), (0, 0, 1.3 * h), b.leaves(0.3))


def tyres(b: Builder) -> None:
    """A stack of them, or one that leans."""
    rubber, r = b.paint(0.02, 0.25), b.uniform(0.22, 0.4)
    if b.chance(0.3):
        b.turned(turn_x(b.uniform(-0.3, 0.1)), z=r).ring(0.72 * r, 0.28 * r, (0, 0, 0), rubber)
        return
    for i in range(b.integer(1, 5)):
        b.turned(turn_x(np.pi / 2), z=(0.28 + 0.54 * i) * r).ring(0.72 * r, 0.28 * r, (0, 0, 0), rubber)


def arch(b: Builder, width: float, height: float, thick: float, surface: Surface) -> None:
    """Two posts and a half circle, across x."""
    angle = np.linspace(0, np.pi, 16)
    top = np.c_[-width / 2 * np.cos(angle), 0 * angle, height + width / 2 * np.sin(angle)]
    b.tube(((-width / 2, 0, 0), *top, (width / 2, 0, 0)), thick, surface, sides=4 if b.chance(0.6) else 10)


def globe(b: Builder) -> None:
    r = b.uniform(0.1, 0.3)
    b.add("cylinder", (r, r, 0.03), (0, 0, 0.015), b.paint())
    b.tube(((0, 0, 0), (0, 0, 0.1)), 0.015, b.paint())
    b.add("ball", (2 * r, 2 * r, 2 * r), (0, 0, 0.08 + r), b.surface("blotches", "picture", tile=r, plain=0.1))


def drum(b: Builder) -> None:
    d, h = b.uniform(0.4, 0.6), b.uniform(0.6, 0.95)
    paint = b.surface("noise", "stripes", plain=0.9)
    b.add("cylinder", (d, d, h), (0, 0, h / 2), paint)
    for z in (0.02, h / 3, 2 * h / 3, h - 0.02):
        b.turned(turn_x(np.pi / 2), z=z).ring(d / 2, 0.015, (0, 0, 0), paint, sides=6)


def _wheel(b: Builder, x: float, r: float, thick: float) -> None:
    metal = b.paint(0.4, 0.95)
    b.ring(r - thick, thick, (x, 0, r), b.paint(0.02, 0.2))
    b.ring(r - 2.3 * thick, 0.4 * thick, (x, 0, r), metal, sides=5)
    for angle in np.arange(0, np.pi, np.pi / b.integer(3, 8)):
        spoke = (r - 2 * thick) * np.array([np.cos(angle), 0, np.sin(angle)])
        b.tube((np.array([x, 0, r]) - spoke, np.array([x, 0, r]) + spoke), 0.25 * thick, metal, sides=4)


def bicycle(b: Builder) -> None:
    """Along x."""
    r, paint, dark = b.uniform(0.28, 0.36), b.paint(), b.paint(0.02, 0.3)
    rear, front, crank, saddle, head = (-0.5, 0, r), (0.52, 0, r), (-0.08, 0, r - 0.05), (-0.24, 0, 0.8), (0.36, 0, 0.8)
    for x in (rear[0], front[0]):
        _wheel(b, x, r, 0.02)
    for path in ((rear, crank, head, saddle, rear), (crank, saddle), (front, head, (0.33, 0, 0.98))):
        b.tube(path, 0.018, paint, sides=6)
    b.tube(((0.22, -0.3, 1.02), (0.34, -0.2, 1.0), (0.34, 0.2, 1.0), (0.22, 0.3, 1.02)), 0.014, dark, sides=6)
    b.add("blob", (0.27, 0.15, 0.08), (-0.26, 0, 0.86), dark)


def motorcycle(b: Builder) -> None:
    """Along x: tank, seat, engine, pipes, fork and mirrors between two wheels."""
    paint, metal, dark = b.paint(), b.surface("noise", plain=0.8, bright=(0.4, 0.9)), b.paint(0.02, 0.2)
    r = b.uniform(0.29, 0.34)
    for x in (-0.68, 0.7):
        _wheel(b, x, r, 0.055)
    b.add("blob", (0.62, 0.32, 0.3), (0.18, 0, 0.78), paint)
    b.add("blob", (0.75, 0.3, 0.2), (-0.4, 0, 0.74), dark)
    b.add("ball", (0.5, 0.24, 0.1), (-0.8, 0, 0.64), paint)
    b.add("ball", (0.46, 0.18, 0.1), (0.72, 0, 2 * r + 0.04), paint)
    for _ in range(b.integer(6, 13)):
        size = tuple(b.rng.uniform(0.08, 0.28, 3))
        center = (b.uniform(-0.3, 0.3), b.uniform(-0.12, 0.12), b.uniform(0.25, 0.6))
        b.add(str(b.rng.choice(("box", "cylinder", "blob"))), size, center, metal if b.chance(0.6) else dark)
    for y in (-0.17, 0.17):
        b.tube(((0.7, 0.6 * y, r), (0.42, 0.6 * y, 0.98)), 0.028, metal)
        b.tube(((0.3, y, 0.55), (0.35, y, 0.3), (0, y, 0.22), (-0.75, y, 0.3)), 0.045, metal)
        b.tube(((-0.68, y, r), (-0.5, y, 0.68)), 0.03, metal)
        b.tube(((0.42, 0, 0.98), (0.36, 2 * y, 1.04), (0.2, 2.3 * y, 1.0)), 0.016, metal, sides=6)
        b.add("ball", (0.03, 0.14, 0.1), (0.35, 1.7 * y, 1.18), dark)
    b.add("ball", (0.16, 0.2, 0.2), (0.55, 0, 0.9), metal)
