"""Things that stand in rooms. Each is built in its own frame: standing on z = 0, its back at +y."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lotus2_ros.scenes import curved, thin
from lotus2_ros.scenes.builder import Builder, Surface, turn_x
from lotus2_ros.scenes.small import heap, scatter


def table(b: Builder) -> None:
    w, d, h = b.uniform(0.7, 2.0), b.uniform(0.5, 1.0), b.uniform(0.4, 0.9)
    wood = b.surface("grain", "planks", "noise", "marble", tile=1.0, plain=0.5)
    if b.chance(0.08):
        b.add("sheet", (w, 1.0, d), (0, 0, h), b.glass(), rotation=turn_x(np.pi / 2))
    else:
        b.add("box", (w, d, 0.04), (0, 0, h - 0.02), wood)
    legs(b, w, d, h - 0.04, wood)
    scatter(b, w, d, h, b.integer(0, 10), b.uniform(0.1, 0.22))
    if b.chance(0.35):
        screen(b.at(b.uniform(-0.2, 0.2) * w, d * 0.2, h, b.uniform(-0.5, 0.5)))
    if b.chance(0.2):
        thin.desk_lamp(b.at(b.uniform(-0.4, 0.4) * w, d * 0.2, h, b.uniform(-3, 3)))


def legs(b: Builder, w: float, d: float, h: float, surface: Surface) -> None:
    """What a top of w x d at height h stands on."""
    kind = b.rng.random()
    if kind < 0.2:
        b.add("box", (w * 0.9, d * 0.8, h), (0, 0, h / 2), surface)
    elif kind < 0.3:
        b.add("cylinder", (0.12, 0.12, h), (0, 0, h / 2), surface)
        b.add("cylinder", (d * 0.7, d * 0.7, 0.04), (0, 0, 0.02), surface)
    else:
        leg, shape = b.uniform(0.02, 0.08), "box" if b.chance(0.6) else "cylinder"
        for x in (-1, 1):
            for y in (-1, 1):
                b.add(shape, (leg, leg, h), (x * (w / 2 - leg), y * (d / 2 - leg), h / 2), surface)


def screen(b: Builder) -> None:
    """A monitor on its foot, on or off, its back at +y."""
    w, plastic = b.uniform(0.35, 0.7), b.paint(0.02, 0.9)
    h = w * b.uniform(0.55, 0.8)
    picture = b.surface("picture", "text", "rectangles", tile=w)
    shown = replace(picture, glow=b.uniform(0.3, 0.9)) if b.chance(0.5) else b.polished(b.paint(0.02, 0.12))
    b.add("cylinder", (0.2, 0.2, 0.015), (0, 0, 0.01), plastic)
    b.add("cylinder", (0.05, 0.05, 0.15), (0, 0.02, 0.07), plastic)
    b.add("box", (w, 0.05, h), (0, 0, 0.1 + h / 2), plastic)
    b.add("box", (w * 0.93, 0.01, h * 0.9), (0, -0.024, 0.1 + h / 2), shown)


def chair(b: Builder) -> None:
    w, seat, top = b.uniform(0.38, 0.55), b.uniform(0.4, 0.5), b.uniform(0.75, 1.1)
    surface, frame = b.surface("cloth", "grain", "noise", tile=0.5, plain=0.6), b.surface("grain", plain=1.0)
    b.add("box", (w, w, 0.06), (0, 0, seat), surface)
    b.add("box", (w, 0.05, (top - seat) * b.uniform(0.5, 1)), (0, w / 2, (top + seat) / 2), surface)
    for x in (-0.45, 0.45):
        b.add("box", (0.04, 0.04, seat), (x * w, -0.45 * w, seat / 2), frame)
        b.add("box", (0.04, 0.04, top), (x * w, 0.45 * w, top / 2), frame)


def shelf(b: Builder) -> None:
    w, d, h = b.uniform(0.6, 1.6), b.uniform(0.25, 0.45), b.uniform(0.8, 2.1)
    wood = b.surface("grain", "planks", "noise", tile=1.0, plain=0.6)
    boards = int(b.rng.integers(3, 6))
    for x in (-w / 2, w / 2):
        b.add("box", (0.03, d, h), (x, 0, h / 2), wood)
    if b.chance(0.6):
        b.add("box", (w, 0.02, h), (0, d / 2, h / 2), wood)
    for i in range(boards):
        z = h * (i + 0.3) / boards
        b.add("box", (w, d, 0.03), (0, 0, z), wood)
        x = -w / 2 + 0.04
        while x < w / 2 - 0.08 and b.chance(0.93):  # books
            thick, tall = b.uniform(0.02, 0.12), h / boards * b.uniform(0.5, 0.85)
            b.add(
                "box",
                (thick, d * b.uniform(0.5, 0.9), tall),
                (x + thick / 2, 0, z + 0.015 + tall / 2),
                b.surface("print", "stripes", tile=0.3),
            )
            x += thick + (b.uniform(0, 0.3) if b.chance(0.25) else 0.004)


def cupboard(b: Builder) -> None:
    w, d, h = b.uniform(0.5, 1.8), b.uniform(0.4, 0.65), b.uniform(0.6, 2.2)
    front = b.surface("grain", "noise", "planks", tile=1.2, plain=0.7)
    b.add("box", (w, d, h), (0, 0, h / 2), front)
    doors = int(b.rng.integers(1, 4))
    for i in range(doors):
        x = w * ((i + 0.5) / doors - 0.5)
        b.add("box", (w / doors * 0.92, 0.03, h * 0.94), (x, -d / 2, h / 2), front)
        b.add("box", (0.02, 0.04, 0.15), (x + 0.3 * w / doors, -d / 2 - 0.03, h / 2), b.surface(plain=1.0))
    if h < 1.4:
        scatter(b, w, d, h, int(b.rng.integers(0, 5)), 0.22)


def sofa(b: Builder) -> None:
    w, d = b.uniform(0.8, 2.2), b.uniform(0.75, 1.0)
    cloth = b.surface("cloth", "noise", "stripes", "checks", tile=0.5, plain=0.6)
    b.add("box", (w, d, 0.42), (0, 0, 0.21), cloth)
    b.add("box", (w, 0.2, 0.45), (0, d / 2 - 0.1, 0.6), cloth)
    for x in (-1, 1):
        b.add("box", (0.18, d, 0.62), (x * (w / 2 - 0.09), 0, 0.31), cloth)
    for _ in range(int(b.rng.integers(0, 4))):
        b.add(
            "blob",
            (0.45, 0.2, 0.42),
            (b.uniform(-0.35, 0.35) * w, d * 0.2, 0.6),
            b.surface("cloth", "dots", "stripes", tile=0.3),
        )


def bed(b: Builder) -> None:
    w, d, h = b.uniform(0.9, 1.8), 2.0, b.uniform(0.35, 0.6)
    b.add("box", (w, d, h * 0.6), (0, 0, h * 0.3), b.surface("grain", plain=0.8))
    b.add(
        "box", (w * 1.02, d * 0.98, h * 0.4), (0, 0, h * 0.8), b.surface("cloth", "checks", "stripes", "dots", tile=0.8)
    )
    b.add("box", (w * 1.05, 0.06, h * 2), (0, d / 2, h), b.surface("grain", "cloth", plain=0.8))
    for x in (-0.22, 0.22):
        b.add("blob", (0.5, 0.4, 0.22), (x * w, d * 0.38, h + 0.06), b.surface("cloth", plain=0.8, bright=(0.6, 1)))


def plant(b: Builder) -> None:
    h = b.uniform(0.5, 1.7)
    b.add("cylinder", (0.3, 0.3, 0.3), (0, 0, 0.15), b.surface("noise", "stripes", plain=0.7, tile=0.4))
    b.add("cylinder", (0.04, 0.04, h * 0.7), (0, 0, h * 0.35), b.surface("grain"))
    leaves = b.leaves(0.25)
    shape = "leaves" if b.chance(0.7) else "blob"
    for _ in range(b.integer(1, 4) if shape == "leaves" else b.integer(3, 8)):
        s = b.uniform(0.3, 0.6) * h
        b.add(shape, (s, s, s), (*b.rng.normal(0, 0.1 * h, 2), h * b.uniform(0.6, 1.0)), leaves)


def lamp(b: Builder) -> None:
    h = b.uniform(1.2, 1.8)
    metal = b.surface("noise", plain=1.0)
    b.add("cylinder", (0.3, 0.3, 0.03), (0, 0, 0.015), metal)
    b.add("cylinder", (0.03, 0.03, h), (0, 0, h / 2), metal)
    b.add(
        "cone" if b.chance(0.5) else "cylinder",
        (0.4, 0.4, 0.3),
        (0, 0, h),
        b.surface("cloth", plain=0.8, bright=(0.6, 1)),
    )


def crates(b: Builder) -> None:
    s = b.uniform(0.3, 0.7)
    z = 0.0
    for _ in range(int(b.rng.integers(1, 5))):
        w, d, h = s * b.rng.uniform(0.7, 1.2, 3)
        b.at(0, 0, 0, b.uniform(-0.4, 0.4)).add(
            "box", (w, d, h), (0, 0, z + h / 2), b.surface("planks", "print", "noise", "rectangles", tile=0.6)
        )
        z += h


def person(b: Builder) -> None:
    """Legs, body, arms and head: something of a person's size and outline."""
    h = b.uniform(1.5, 1.95)
    trousers, shirt = b.surface("cloth", "noise", plain=0.8), b.surface("cloth", "stripes", "checks", "noise", tile=0.4)
    skin = b.surface("noise", plain=1.0, bright=(0.35, 0.9))
    stride = b.uniform(-0.15, 0.15)
    for side in (-1, 1):
        b.add("cylinder", (0.17, 0.17, h * 0.5), (side * 0.1, side * stride, h * 0.25), trousers)
        b.add("cylinder", (0.1, 0.1, h * 0.36), (side * 0.26, -side * stride, h * 0.62), shirt)
    b.add("ball", (0.46, 0.28, h * 0.42), (0, 0, h * 0.65), shirt)
    b.add("ball", (0.19, 0.22, 0.26), (0, 0, h - 0.13), skin)


def tote(b: Builder) -> None:
    """An open box with things in it."""
    w, d, h = b.uniform(0.4, 0.8), b.uniform(0.3, 0.6), b.uniform(0.15, 0.4)
    plastic = b.surface("noise", "stripes", plain=0.9, tile=0.5)
    b.add("box", (w, d, 0.02), (0, 0, 0.01), plastic)
    for side in (-1, 1):
        b.add("box", (0.02, d, h), (side * w / 2, 0, h / 2), plastic)
        b.add("box", (w, 0.02, h), (0, side * d / 2, h / 2), plastic)
    if b.chance(0.5):
        scatter(b, w * 0.8, d * 0.8, 0.02, b.integer(4, 14), 0.16)
    else:
        heap(b, w * 0.9, d * 0.9, 0.02, b.integer(5, 16), 0.25)


def standing_mirror(b: Builder) -> None:
    w, h, frame = b.uniform(0.4, 0.8), b.uniform(1.2, 1.8), b.surface("grain", "noise", plain=0.8)
    leaning = b.turned(turn_x(-0.1))
    leaning.add("box", (w, 0.03, h), (0, 0, h / 2), frame)
    leaning.add("sheet", (w * 0.9, 1.0, h * 0.92), (0, -0.02, h / 2), b.looking_glass())


def pane(b: Builder) -> None:
    """A glass wall in its frame."""
    w, h, frame = b.uniform(0.8, 2.0), b.uniform(1.2, 2.1), b.paint()
    b.tube(((-w / 2, 0, 0), (-w / 2, 0, h), (w / 2, 0, h), (w / 2, 0, 0)), 0.03, frame, sides=4)
    b.add("sheet", (w, 1.0, h), (0, 0, h / 2), b.glass())


FURNITURE: tuple[Callable[[Builder], None], ...] = (
    table, table, table, chair, chair, shelf, shelf, cupboard, sofa, bed, plant, lamp, crates, person, tote,
    thin.office_chair, thin.office_chair, thin.tripod, thin.stool, thin.ladder, thin.clothes_rack,
    curved.big_vase, curved.tyres, curved.bicycle, curved.motorcycle,
)  # fmt: skip
# Where there are assets: the share of models among furniture, and their sizes, meters.
MODELS, MODEL_SIZES = 0.4, (0.3, 2.6)


def piece_of_furniture(b: Builder) -> Callable[[Builder], None]:
    """One of FURNITURE, which is now and then a model of the assets in its place."""
    chosen = FURNITURE[b.integer(0, len(FURNITURE))]
    return lambda place: None if place.model(MODELS, MODEL_SIZES) else chosen(place)


# Hard cases: what is seen is not what is there.
DECEPTIVE = (standing_mirror, pane)
