"""Thin things: bars, cables, railings, fences, legs. Each in its own frame, standing on z = 0."""

from __future__ import annotations

import numpy as np

from lotus2_ros.scenes.builder import Builder, Point, Surface


def hang(b: Builder, start: Point, end: Point, sag: float, radius: float, surface: Surface) -> None:
    """A cable between two points, `sag` meters below their line in the middle."""
    t = np.linspace(0, 1, 14)[:, None]
    path = (1 - t) * np.asarray(start, float) + t * np.asarray(end, float)
    path[:, 2] -= 4 * sag * (t * (1 - t))[:, 0]
    b.tube(path, radius, surface, sides=5)


def railing(b: Builder, length: float, height: float) -> None:
    """Along x: posts, rails, and bars or a few wires between them."""
    metal, thick = b.surface("noise", "grain", plain=0.9), b.uniform(0.012, 0.035)
    for z in (height, height * b.uniform(0.08, 0.2)):
        b.tube(((-length / 2, 0, z), (length / 2, 0, z)), thick, metal, sides=6)
    if b.chance(0.7):
        count = max(2, int(length / b.uniform(0.11, 0.3)))
        for x in np.linspace(-length / 2, length / 2, min(count, 60)):
            b.tube(((x, 0, 0), (x, 0, height)), thick * 0.6, metal, sides=4)
    else:
        for x in np.linspace(-length / 2, length / 2, max(2, int(length / 1.5))):
            b.tube(((x, 0, 0), (x, 0, height)), thick, metal, sides=6)
        for z in np.linspace(0.25, 0.8, b.integer(1, 5)) * height:
            b.tube(((-length / 2, 0, z), (length / 2, 0, z)), thick * 0.5, metal, sides=4)


def fence(b: Builder, length: float) -> None:
    """Of boards, along x."""
    h, pitch = b.uniform(0.8, 1.9), b.uniform(0.12, 0.3)
    wood = b.surface("grain", "noise", "planks", plain=0.7)
    board = pitch * b.uniform(0.3, 0.85)
    for x in np.arange(-length / 2, length / 2, max(pitch, length / 70)):
        b.add("box", (board, 0.02, h), (x, 0, h / 2), wood)
    for z in (0.2, 0.8):
        b.add("box", (length, 0.05, 0.08), (0, 0.03, z * h), wood)


def tripod(b: Builder) -> None:
    """With a camera, a lamp or nothing on it."""
    h, spread, metal = b.uniform(0.7, 1.7), b.uniform(0.25, 0.5), b.paint(0.02, 0.8)
    for angle in np.arange(3) * 2 * np.pi / 3:
        b.tube(((spread * np.cos(angle), spread * np.sin(angle), 0), (0, 0, h * 0.8)), 0.015, metal, sides=6)
    b.tube(((0, 0, h * 0.5), (0, 0, h)), 0.02, metal)
    if b.chance(0.6):
        b.add("box", (0.16, 0.1, 0.12), (0, 0, h + 0.06), b.paint(0.02, 0.6))


def office_chair(b: Builder) -> None:
    cloth, metal, seat = b.surface("cloth", "noise", plain=0.8), b.paint(0.02, 0.7), b.uniform(0.42, 0.55)
    for angle in b.uniform(0, 1) + np.arange(5) * 2 * np.pi / 5:
        x, y = 0.3 * np.cos(angle), 0.3 * np.sin(angle)
        b.tube(((0, 0, 0.12), (x, y, 0.07)), 0.02, metal, sides=6)
        b.add("ball", (0.06, 0.06, 0.06), (x, y, 0.03), metal)
    b.tube(((0, 0, 0.1), (0, 0, seat)), 0.03, metal)
    b.add("blob", (0.52, 0.52, 0.16), (0, 0, seat), cloth)
    b.tube(((0, 0.1, seat), (0, 0.28, seat), (0, 0.3, seat + 0.3)), 0.025, metal, sides=6)
    b.add("blob" if b.chance(0.5) else "box", (0.46, 0.09, b.uniform(0.35, 0.6)), (0, 0.26, seat + 0.42), cloth)
    if b.chance(0.5):
        for x in (-0.28, 0.28):
            b.tube(((x, 0.1, seat), (x, 0.1, seat + 0.2), (x, -0.15, seat + 0.2)), 0.02, metal, sides=6)


def stool(b: Builder) -> None:
    h, r, wood = b.uniform(0.4, 0.8), b.uniform(0.14, 0.2), b.surface("grain", "noise", plain=0.8)
    b.add("cylinder", (2.2 * r, 2.2 * r, 0.04), (0, 0, h), wood)
    for angle in np.arange(4) * np.pi / 2:
        x, y = r * np.cos(angle), r * np.sin(angle)
        b.tube(((1.2 * x, 1.2 * y, 0), (0.8 * x, 0.8 * y, h)), 0.016, wood, sides=6)
    b.at(0, 0, h * 0.35).tube(((-r, 0, 0), (0, -r, 0), (r, 0, 0), (0, r, 0)), 0.01, wood, sides=5, closed=True)


def ladder(b: Builder) -> None:
    """Leans toward its back."""
    h, w, metal = b.uniform(1.5, 3.0), b.uniform(0.3, 0.5), b.surface("grain", "noise", plain=0.9)
    for x in (-w / 2, w / 2):
        b.tube(((x, -0.25 * h, 0), (x, 0, h)), 0.025, metal, sides=4)
    for t in np.arange(0.1, 0.98, 0.28 / h):
        b.tube(((-w / 2, -0.25 * h * (1 - t), t * h), (w / 2, -0.25 * h * (1 - t), t * h)), 0.015, metal, sides=6)


def desk_lamp(b: Builder) -> None:
    metal, reach = b.paint(), b.uniform(0.2, 0.4)
    b.add("cylinder", (0.16, 0.16, 0.02), (0, 0, 0.01), metal)
    b.tube(((0, 0, 0), (-0.4 * reach, 0, reach), (0.5 * reach, 0, 1.5 * reach)), 0.01, metal, sides=6)
    b.add("cone", (0.15, 0.15, 0.13), (0.5 * reach, 0, 1.45 * reach), metal)


def clothes_rack(b: Builder) -> None:
    w, h, metal = b.uniform(0.8, 1.5), b.uniform(1.3, 1.8), b.paint()
    for x in (-w / 2, w / 2):
        b.tube(((x, -0.25, 0.02), (x, 0.25, 0.02)), 0.015, metal, sides=6)
    b.tube(((-w / 2, 0, 0), (-w / 2, 0, h), (w / 2, 0, h), (w / 2, 0, 0)), 0.015, metal, sides=6)
    for x in np.arange(-0.4, 0.4, 0.1) * w:
        if b.chance(0.6):
            drop = b.uniform(0.5, 0.9)
            b.add("box", (0.03, 0.42, drop), (x, 0, h - 0.06 - drop / 2), b.surface("cloth", "stripes", plain=0.6))
