"""A warehouse or workshop: racks, pallets, drums, pipes, columns, beams, railings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lotus2_ros.scenes import curved, thin, things
from lotus2_ros.scenes.builder import Builder, Surface
from lotus2_ros.scenes.shell import furnish, hanging, inside, lamps, shell
from lotus2_ros.scenes.small import scatter
from lotus2_ros.scenes.world import Light, World


def warehouse(b: Builder) -> World:
    w, d, h = b.uniform(7, 26), b.uniform(6, 20), b.uniform(3.2, 8)
    shell(b, w, d, h, wall_tile=2.5)
    steel, beam = b.paint(), b.paint()
    for y in np.arange(-d / 2 + 1.0, d / 2 - 1.0, b.uniform(2.5, 5.0)):
        if b.chance(0.5):
            _rack(b.at(0, y), b.uniform(0.5, 0.95) * w, h, steel, beam)
    _structure(b, w, d, h)
    for _ in range(b.integer(3, 16)):
        load = _LOADS[b.integer(0, len(_LOADS))]
        load(b.at(b.uniform(-0.45, 0.45) * w, b.uniform(-0.45, 0.45) * d, 0, b.uniform(-np.pi, np.pi)))
    furnish(b, w * 0.9, d * 0.9, b.integer(1, 8))
    scatter(b, w * 0.9, d * 0.9, 0.0, b.integer(0, 12), 0.35)
    hanging(b, w, d, h, b.integer(0, 5))
    lights, ambient = lamps(b, w, d, h)
    lights = [Light(light.position, light.color, light.reach * 2.5) for light in lights]
    return World("warehouse", b.parts, lights, ambient, inside(w, d, (-22, 8)), (50, 95), 0.5)


def _rack(b: Builder, length: float, h: float, steel: Surface, beam: Surface) -> None:
    """Along x: uprights with braces, beams, decks, and boxes, totes or pallets on most of them."""
    bay, deep, rise = b.uniform(1.6, 2.8), b.uniform(0.6, 1.1), b.uniform(0.7, 1.6)
    levels = b.integer(2, max(3, min(5, int(h / rise))))
    for x in np.arange(-length / 2, length / 2 + 0.01, bay):
        for y in (-deep / 2, deep / 2):
            b.add("box", (0.08, 0.06, levels * rise), (x, y, levels * rise / 2), steel)
        for z in np.arange(levels) * rise:
            b.tube(((x, -deep / 2, z), (x, deep / 2, z + rise)), 0.015, steel, sides=4)
        if x + bay > length / 2:
            break
        for z in np.arange(levels) * rise + 0.12:
            for y in (-deep / 2, deep / 2):
                b.add("box", (bay, 0.04, 0.1), (x + bay / 2, y, z), beam)
            b.add("box", (bay, deep, 0.03), (x + bay / 2, 0, z + 0.05), steel)
            if b.chance(0.8):
                _stock(b.at(x, 0, z + 0.065), bay, deep, rise)


def _stock(b: Builder, bay: float, deep: float, rise: float) -> None:
    x = b.uniform(0.05, 0.3)
    while x < bay - 0.25:
        w = min(b.uniform(0.2, 0.9), bay - x - 0.05)
        size = (w, deep * b.uniform(0.5, 0.95), rise * b.uniform(0.2, 0.75))
        families = ("noise", "print", "planks", "text", "cloth")
        shape = "box" if b.chance(0.85) else "cylinder"
        box = b.surface(*families, tile=0.7, plain=0.7)
        b.add(shape, size, (x + w / 2, b.uniform(-0.05, 0.05), size[2] / 2), box)
        x += w + (b.uniform(0.02, 0.6) if b.chance(0.5) else 0.02)


def _pallet(b: Builder) -> None:
    """Of boards, with boxes on it."""
    wood = b.surface("grain", "noise", plain=0.7, bright=(0.4, 0.9))
    for y in (-0.35, 0.0, 0.35):
        b.add("box", (1.2, 0.1, 0.1), (0, y, 0.05), wood)
    for x in np.linspace(-0.55, 0.55, 6):
        b.add("box", (0.12, 0.8, 0.022), (x, 0, 0.111), wood)
    card = b.surface("noise", "print", "text", tile=0.6, plain=0.7)
    columns, rows, layers = b.integer(1, 4), b.integer(1, 3), b.integer(0, 5)
    size = (1.15 / columns, 0.78 / rows, b.uniform(0.2, 0.45))
    for i, j, k in np.ndindex(columns, rows, layers):
        if k < layers - 1 or b.chance(0.8):
            center = ((i + 0.5) * size[0] - 0.575, (j + 0.5) * size[1] - 0.39, 0.122 + (k + 0.5) * size[2])
            b.add("box", (size[0] - 0.01, size[1] - 0.01, size[2]), center, card)


def _drums(b: Builder) -> None:
    for i in range(b.integer(1, 5)):
        curved.drum(b.at(0.65 * (i % 2), 0.65 * (i // 2)))


def _pipes(b: Builder) -> None:
    """A heap of them, along x."""
    r, length, metal = b.uniform(0.03, 0.15), b.uniform(1.5, 5), b.surface("noise", "grain", plain=0.8)
    count = b.integer(2, 6)
    for row in range(count):
        for i in range(count - row):
            y, z = (2 * i + row - count) * r, r * (1 + 1.73 * row)
            b.tube(((-length / 2, y, z), (length / 2, y, z)), r, metal, sides=12)


def _trolley(b: Builder) -> None:
    """A platform on wheels with a bow to push it."""
    steel, wheel = b.paint(), b.paint(0.02, 0.2)
    b.add("box", (1.0, 0.6, 0.04), (0, 0, 0.2), steel)
    b.tube(((-0.48, -0.28, 0.2), (-0.52, -0.28, 1.0), (-0.52, 0.28, 1.0), (-0.48, 0.28, 0.2)), 0.018, steel, sides=6)
    for x in (-0.4, 0.4):
        for y in (-0.25, 0.25):
            b.add("ball", (0.16, 0.05, 0.16), (x, y, 0.09), wheel)
    things.crates(b.at(0, 0, 0.22))


def _barrier(b: Builder) -> None:
    thin.railing(b, b.uniform(1.5, 5), b.uniform(0.8, 1.2))


_LOADS: tuple[Callable[[Builder], None], ...] = (
    _pallet, _pallet, _pallet, _drums, _pipes, _trolley, _barrier, things.crates, things.crates, things.person,
    thin.ladder, curved.tyres, curved.motorcycle,
)  # fmt: skip


def _structure(b: Builder, w: float, d: float, h: float) -> None:
    """Columns, beams and pipes under the roof."""
    steel = b.surface("noise", "bricks", "stripes", plain=0.7)
    shape, thick, pitch = "cylinder" if b.chance(0.5) else "box", b.uniform(0.15, 0.5), b.uniform(4, 8)
    if b.chance(0.6):
        for x in np.arange(-w / 2 + pitch / 2, w / 2, pitch):
            for y in (-d / 4, d / 4):
                b.add(shape, (thick, thick, h), (x, y, h / 2), steel)
    for x in np.arange(-w / 2 + pitch / 2, w / 2, pitch / 2):
        b.add("box", (0.15, d, 0.3), (x, 0, h - 0.15), steel)
    for _ in range(b.integer(0, 5)):
        y, z, radius = b.uniform(-0.48, 0.48) * d, h - b.uniform(0.4, 1.2), b.uniform(0.04, 0.25)
        b.tube(((-w / 2, y, z), (w / 2, y, z)), radius, b.paint(), sides=12)
