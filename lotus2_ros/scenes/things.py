"""Things that stand in rooms. Each is built in its own frame: standing on z = 0, its back at +y."""

from __future__ import annotations

from collections.abc import Callable

from lotus2_ros.scenes.builder import Builder, any_rotation


def small_thing(b: Builder, size: float) -> None:
    """A book, box, cup, ball, bottle, bag or stack, about `size` across."""
    s = size * b.uniform(0.5, 1.4)
    surface = b.surface("print", "rectangles", "noise", "stripes", "dots", "checks", "cloth", tile=2 * s, plain=0.4)
    kind = b.rng.integers(7)
    if kind == 0:  # a box, perhaps lying askew
        w, d, h = s * b.rng.uniform(0.3, 1.2, 3)
        b.add("box", (w, d, h), (0, 0, h / 2), surface)
    elif kind == 1:
        h = s * b.uniform(0.6, 1.8)
        b.add("cylinder", (s * 0.6, s * 0.6, h), (0, 0, h / 2), surface)
    elif kind == 2:
        b.add("ball", (s, s, s), (0, 0, s / 2), surface)
    elif kind == 3:  # a bottle
        h = s * b.uniform(1.2, 2.2)
        b.add("cylinder", (s * 0.5, s * 0.5, h * 0.7), (0, 0, h * 0.35), surface)
        b.add("cylinder", (s * 0.18, s * 0.18, h * 0.3), (0, 0, h * 0.85), surface)
    elif kind == 4:
        h = s * b.uniform(0.4, 1.0)
        b.add("blob", (s, s * b.uniform(0.6, 1), h), (0, 0, h * 0.4), surface)
    elif kind == 5:  # a stack
        z = 0.0
        for _ in range(int(b.rng.integers(2, 6))):
            h = s * b.uniform(0.08, 0.35)
            b.at(0, 0, 0, b.uniform(-0.3, 0.3)).add(
                "box",
                (s * b.uniform(0.7, 1), s * b.uniform(0.5, 0.8), h),
                (0, 0, z + h / 2),
                b.surface("print", "rectangles", tile=s),
            )
            z += h
    else:
        b.add("box", (s, s * 0.1, s * 0.7), (0, 0, s * 0.4), surface, rotation=any_rotation(b.rng))


def scatter(b: Builder, width: float, depth: float, z: float, count: int, size: float) -> None:
    """Small things on a flat top of width x depth at height z."""
    for _ in range(count):
        small_thing(b.at(b.uniform(-0.45, 0.45) * width, b.uniform(-0.45, 0.45) * depth, z, b.uniform(-3, 3)), size)


def table(b: Builder) -> None:
    w, d, h = b.uniform(0.7, 2.0), b.uniform(0.5, 1.0), b.uniform(0.4, 0.9)
    wood = b.surface("grain", "planks", "noise", "marble", tile=1.0, plain=0.5)
    b.add("box", (w, d, 0.04), (0, 0, h - 0.02), wood)
    if b.chance(0.8):
        leg = b.uniform(0.03, 0.08)
        shape = "box" if b.chance(0.6) else "cylinder"
        for x in (-1, 1):
            for y in (-1, 1):
                b.add(shape, (leg, leg, h - 0.04), (x * (w / 2 - leg), y * (d / 2 - leg), (h - 0.04) / 2), wood)
    else:
        b.add("box", (w * 0.9, d * 0.8, h - 0.04), (0, 0, (h - 0.04) / 2), wood)
    scatter(b, w, d, h, int(b.rng.integers(0, 8)), 0.18)
    if b.chance(0.3):  # a screen
        b.add(
            "box",
            (0.5, 0.04, 0.32),
            (b.uniform(-0.2, 0.2) * w, d * 0.2, h + 0.28),
            b.surface("rectangles", "print", tile=0.6),
        )
        b.add("cylinder", (0.06, 0.06, 0.15), (0, d * 0.2, h + 0.07), b.surface(plain=1.0))


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
    leaves = b.surface("blotches", "noise", tile=0.25, plain=0.2, bright=(0.15, 0.6))
    for _ in range(int(b.rng.integers(3, 8))):
        s = b.uniform(0.15, 0.4) * h
        b.add("blob", (s, s, s), (*b.rng.normal(0, 0.14 * h, 2), h * b.uniform(0.6, 1.0)), leaves)


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
    scatter(b, w * 0.8, d * 0.8, 0.02, int(b.rng.integers(4, 14)), 0.16)


FURNITURE: tuple[Callable[[Builder], None], ...] = (
    table,
    table,
    chair,
    chair,
    shelf,
    cupboard,
    sofa,
    bed,
    plant,
    lamp,
    crates,
    person,
    tote,
)
