"""Worlds under the sky: streets, roads through fields, car parks."""

from __future__ import annotations

import numpy as np

from lotus2_ros.scenes import street_things, thin
from lotus2_ros.scenes.builder import Builder
from lotus2_ros.scenes.world import Light, Pose, World

# Where there are assets: the share of models among what stands along a road, and their sizes, meters.
MODELS, MODEL_SIZES = 0.35, (0.5, 8.0)


def street(b: Builder) -> World:
    """Ground to the horizon, what lines the road, cars near and far, hills, sky."""
    road, walk = b.uniform(4, 14), b.uniform(1.0, 5)
    _ground(b, road)
    lining = b.rng.choice(("houses", "trees", "open", "parking"), p=(0.42, 0.28, 0.15, 0.15))
    for side in (-1, 1):
        if lining == "houses" or b.chance(0.15):
            _houses(b, side, road / 2 + walk)
        if lining == "trees" or b.chance(0.2):
            _row_of_trees(b, side, road / 2 + walk)
        _kerb(b, side, road, walk)
        _alongside(b, side, road, walk, b.integer(2, 20) if lining != "open" else b.integer(0, 6))
    if lining == "parking":
        _car_park(b, road)
    for _ in range(b.integer(0, 7)):
        lane = road / 4 * b.rng.choice((-1, 1))
        street_things.vehicle(b.at(b.uniform(-60, 90), lane, 0, b.uniform(-0.08, 0.08)))
    if b.chance(0.35):
        _wires(b, road)
    _hills(b)
    light, sky = _sun_and_sky(b)

    def choose(rng: np.random.Generator) -> Pose:
        height = rng.uniform(0.15, 1.0) if rng.random() < 0.2 else rng.uniform(1.1, 2.3)
        aside = rng.uniform(-0.45, 0.45) * road if rng.random() < 0.8 else rng.choice((-1, 1)) * (road / 2 + walk / 2)
        position = np.array([rng.uniform(-40, 30), aside, height])
        yaw = np.radians(rng.normal(0, 8 if rng.random() < 0.7 else 50)) + (np.pi if rng.random() < 0.3 else 0.0)
        pitch = np.radians(rng.normal(-2, 3 if rng.random() < 0.8 else 12))
        return Pose(position, float(yaw), float(pitch), float(np.radians(rng.normal(0, 1.2))))

    haze = 1 / b.uniform(60, 200) if b.chance(0.1) else 1 / b.uniform(300, 4000)
    brightness = b.uniform(0.7, 1.6)
    return World("street", b.parts, [light], sky * b.uniform(0.2, 0.45), choose, (40, 95), 1.0, sky * brightness, haze)


def _ground(b: Builder, road: float) -> None:
    """Grass, gravel or concrete; the road and its marks; perhaps rails."""
    ground = b.surface("noise", "blotches", "gradient", tile=4.0, plain=0.6, bright=(0.15, 0.6), hue=(0.04, 0.16))
    b.add("box", (900, 900, 0.2), (0, 0, -0.1), b.leaves(3.0) if b.chance(0.4) else b.dull(ground))
    asphalt = b.surface("noise", "blotches", plain=0.9, tile=5.0, bright=(0.15, 0.55), hue=(0.04, 0.13))
    b.add("box", (400, road, 0.02), (0, 0, 0.01), b.dull(asphalt) if b.chance(0.85) else asphalt)
    if b.chance(0.65):
        mark, wide = b.paint(0.8, 1.0), b.uniform(0.1, 0.25)
        for x in np.arange(-90, 90, b.uniform(5, 12)):
            b.add("box", (3, wide, 0.01), (x, 0, 0.028), mark)
        for y in (-0.46 * road, 0.46 * road):
            if b.chance(0.6):
                b.add("box", (400, wide, 0.01), (0, y, 0.028), mark)
    if b.chance(0.2):
        steel, y = b.paint(0.2, 0.7), b.rng.choice((-1, 1)) * (road / 2 + 2)
        b.add("box", (400, 2.6, 0.12), (0, y, 0.06), b.surface("noise", "dots", tile=1.0, bright=(0.2, 0.6)))
        for x in np.arange(-30, 40, 0.7):
            b.add("box", (0.25, 2.2, 0.1), (x, y, 0.11), steel)
        for rail in (-0.72, 0.72):
            b.add("box", (400, 0.08, 0.15), (0, y + rail, 0.22), steel)


def _kerb(b: Builder, side: int, road: float, walk: float) -> None:
    if b.chance(0.6):
        stone = b.surface("tiles", "noise", tile=1.5, plain=0.6)
        b.add(
            "box", (400, walk, 0.14), (0, side * (road / 2 + walk / 2), 0.07), b.dull(stone) if b.chance(0.8) else stone
        )
    edge = side * (road / 2 + b.uniform(0.2, walk))
    kind = b.rng.random()
    if kind < 0.15:  # a crash barrier
        steel = b.paint(0.4, 0.9)
        b.add("box", (120, 0.06, 0.3), (0, edge, 0.6), steel)
        for x in np.arange(-40, 60, 3.0):
            b.add("box", (0.1, 0.1, 0.7), (x, edge, 0.35), steel)
    elif kind < 0.35:
        along = b.at(b.uniform(-40, 40), edge)
        thin.railing(along, 14.0, 1.1) if b.chance(0.5) else thin.fence(along, 16.0)
    elif kind < 0.5:  # a hedge
        h, leaves = b.uniform(0.6, 2.5), b.leaves(0.8)
        for x in np.arange(-40, 60, 2.2):
            b.add("blob", (3.4, 1.4, 1.3 * h), (x, edge + side, 0.5 * h), leaves)


def _houses(b: Builder, side: int, edge: float) -> None:
    """Houses and walls, with gaps; ``side`` is 1 on the left, -1 on the right."""
    x, built = -90.0, b.uniform(0.2, 1.0)
    while x < 100:
        length = b.uniform(6, 22)
        if b.chance(built):
            depth, h = b.uniform(6, 14), b.uniform(3, 18)
            front = b.surface("facade", "facade", "bricks", "planks", "noise", tile=b.uniform(5, 10), plain=0.2)
            house = b.at(x + length / 2, side * (edge + depth / 2 + b.uniform(0, 3)))
            house.add("box", (length, depth, h), (0, 0, h / 2), b.dull(front) if b.chance(0.4) else front)
            if h < 9 and b.chance(0.6):
                ridge = np.array([[-length / 2 - 0.3, 0, h], [length / 2 + 0.3, 0, h]])
                house.tube(ridge, depth / 2**0.5, b.surface("tiles", "bricks", tile=2.0, plain=0.6), sides=4)
        elif b.chance(0.5):
            h = b.uniform(0.8, 2.5)
            wall = b.surface("noise", "bricks", "blotches", "planks", "leafage")
            b.add("box", (length, 0.6, h), (x + length / 2, side * (edge + 1), h / 2), wall)
        x += length + (b.uniform(0, 8) if b.chance(0.4) else 0.0)


def _row_of_trees(b: Builder, side: int, edge: float) -> None:
    x, pitch = -60.0, b.uniform(3, 12)
    while x < 110:
        street_things.tree(b.at(x, side * (edge + b.uniform(0, 6))))
        x += pitch * b.uniform(0.5, 1.5)


def _alongside(b: Builder, side: int, road: float, walk: float, count: int) -> None:
    for _ in range(count):
        thing = street_things.STREET[b.integer(0, len(street_things.STREET))]
        parked = thing is street_things.vehicle
        y = side * (road / 2 + (-b.uniform(0.8, 1.2) if parked else b.uniform(0.3, walk + 2)))
        place = b.at(b.uniform(-50, 70), y, 0.0, b.uniform(-0.1, 0.1))
        if not place.model(MODELS, MODEL_SIZES):
            thing(place)


def _car_park(b: Builder, road: float) -> None:
    side, mark = b.rng.choice((-1, 1)), b.paint(0.7, 1.0)
    for row in range(b.integer(1, 4)):
        y = side * (road / 2 + 3 + 8 * row)
        for x in np.arange(-30, 50, 2.8):
            b.add("box", (0.1, 5, 0.01), (x, y, 0.01), mark)
            if b.chance(0.5):
                street_things.vehicle(b.at(x + 1.4, y, 0, np.pi / 2 + b.uniform(-0.05, 0.05)))


def _wires(b: Builder, road: float) -> None:
    """Poles along the road with wires from one to the next."""
    pitch, h, y = b.uniform(20, 35), b.uniform(5, 8), b.rng.choice((-1, 1)) * (road / 2 + 0.6)
    wood, dark = b.surface("grain", "noise", plain=0.9), b.paint(0.02, 0.2)
    for x in np.arange(-70, 100, pitch):
        b.tube(((x, y, 0), (x, y, h)), 0.13, wood)
        b.tube(((x, y - 1, h - 0.4), (x, y + 1, h - 0.4)), 0.05, wood, sides=4)
        for across in (-0.9, 0.0, 0.9):
            thin.hang(b, (x, y + across, h - 0.3), (x + pitch, y + across, h - 0.3), 0.6, 0.02, dark)


def _hills(b: Builder) -> None:
    for _ in range(b.integer(0, 6)):
        angle, far = b.uniform(-np.pi, np.pi), b.uniform(150, 380)
        size = (b.uniform(100, 300), b.uniform(100, 300), b.uniform(20, 120))
        slope = b.leaves(40)
        b.add("blob", size, (far * np.cos(angle), far * np.sin(angle), 0), slope)


def _sun_and_sky(b: Builder) -> tuple[Light, np.ndarray]:
    """The sun, dimmed by clouds, and the color of the sky."""
    sun, elevation = b.uniform(-np.pi, np.pi), np.radians(b.uniform(8, 70))
    direction = np.array([np.cos(elevation) * np.cos(sun), np.cos(elevation) * np.sin(sun), np.sin(elevation)])
    overcast = b.uniform(0, 1) ** 1.5
    light = Light(direction * 3000, np.array([1.0, 0.95, 0.85]) * b.uniform(0.9, 1.6) * (1 - 0.9 * overcast), 3000.0)
    sky = np.array([0.35, 0.55, 0.95]) * (1 - overcast) + overcast * np.array([0.8, 0.83, 0.88])
    return light, sky
