"""Meshes: vertices (N, 3) and triangles (M, 3). The unit ones fill [-.5, .5]^3."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

Mesh = tuple[np.ndarray, np.ndarray]


def unit(shape: str, rng: np.random.Generator) -> Mesh:
    """A "box", "cylinder", "cone", "ball", "sheet" (flat, facing y) or, other each time, "blob", "vase", "leaves"."""
    drawn = {"blob": _blob, "vase": _vase, "leaves": _leaves}
    return drawn[shape](rng) if shape in drawn else _fixed(shape)


def sweep(path: np.ndarray, radius: float | np.ndarray, sides: int, closed: bool) -> Mesh:
    """A tube around the polyline `path` (N, 3), as wide as `radius` (one, or one per point) says."""
    along = np.roll(path, -1, 0) - np.roll(path, 1, 0)
    if not closed:
        along[0], along[-1] = path[1] - path[0], path[-1] - path[-2]
    along = along / np.linalg.norm(along, axis=1, keepdims=True)
    # The direction that the path goes least: across it the rings do not twist.
    across = np.linalg.svd(along)[2][-1]
    side = _cross(across[None], along)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    angle = 2 * np.pi * (np.arange(sides) + 0.5) / sides
    ring = np.cos(angle)[:, None] * side[:, None] + np.sin(angle)[:, None] * _cross(along, side)[:, None]
    width = np.broadcast_to(np.asarray(radius, float), len(path))[:, None, None]
    vertices = np.concatenate(((path[:, None] + width * ring).reshape(-1, 3), path[[0, -1]]))
    return vertices, _tube(len(path), sides, closed)


@lru_cache(maxsize=256)
def _tube(points: int, sides: int, closed: bool) -> np.ndarray:
    """Triangles of a tube; if it is open, with its ends, whose centres come after all rings."""
    triangles = [_band(k * sides, (k + 1) % points * sides, sides) for k in range(points - (not closed))]
    if not closed:
        i = np.arange(sides)
        for end, centre in ((0, points * sides), ((points - 1) * sides, points * sides + 1)):
            triangles.append(np.stack((end + i, end + (i + 1) % sides, np.full(sides, centre)), axis=-1))
    return np.concatenate(triangles)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """As np.cross of (N, 3), which takes five times as long for a few."""
    return a[:, [1, 2, 0]] * b[:, [2, 0, 1]] - a[:, [2, 0, 1]] * b[:, [1, 2, 0]]


def revolve(sides: int, radii: np.ndarray, heights: np.ndarray, offset: float = 0.0) -> Mesh:
    """The surface of revolution around z through a profile of (radius, height), bottom to top."""
    angle = offset + 2 * np.pi * np.arange(sides) / sides
    ring = np.stack((np.cos(angle), np.sin(angle)), axis=-1)
    vertices = np.concatenate([np.c_[r * ring, np.full(sides, z)] for r, z in zip(radii, heights, strict=True)])
    return vertices, np.concatenate([_band(k * sides, (k + 1) * sides, sides) for k in range(len(radii) - 1)])


def _band(low: int, high: int, sides: int) -> np.ndarray:
    """Triangles between two rings of vertices."""
    i = np.arange(sides)
    j = (i + 1) % sides
    return np.concatenate((np.stack((low + i, low + j, high + j), -1), np.stack((low + i, high + j, high + i), -1)))


@lru_cache(maxsize=8)
def _fixed(shape: str) -> Mesh:
    if shape == "box":
        mesh = revolve(4, np.array([0.0, 0.5**0.5, 0.5**0.5, 0.0]), np.array([-0.5, -0.5, 0.5, 0.5]), np.pi / 4)
    elif shape == "cylinder":
        mesh = revolve(24, np.array([0.0, 0.5, 0.5, 0.0]), np.array([-0.5, -0.5, 0.5, 0.5]))
    elif shape == "cone":
        mesh = revolve(24, np.array([0.0, 0.5, 0.0]), np.array([-0.5, -0.5, 0.5]))
    elif shape == "ball":
        angle = np.linspace(-np.pi / 2, np.pi / 2, 16)
        mesh = revolve(28, 0.5 * np.cos(angle), 0.5 * np.sin(angle))
    elif shape == "sheet":
        corners = np.array([[-0.5, 0, -0.5], [0.5, 0, -0.5], [0.5, 0, 0.5], [-0.5, 0, 0.5]])
        mesh = corners, np.array([[0, 1, 2], [0, 2, 3]])
    else:
        raise ValueError(f"expected a shape among box, cylinder, cone, ball, sheet, blob, vase, leaves; got {shape!r}")
    return mesh[0], mesh[1][_area(*mesh) > 1e-9]


def _area(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    a, b, c = vertices[triangles].transpose(1, 0, 2)
    return np.linalg.norm(np.cross(b - a, c - a), axis=-1)


def _blob(rng: np.random.Generator) -> Mesh:
    """A ball with smooth dents: cushions, bags, stones, crowns of trees."""
    vertices, triangles = _fixed("ball")
    waves = rng.normal(0, 5, (6, 3))
    dents = np.sin(vertices @ waves.T + rng.uniform(0, 6.3, 6)) @ rng.normal(0, 0.07, 6)
    return vertices * np.clip(1 + dents, 0.6, 1.25)[:, None] / 1.25, triangles


def _vase(rng: np.random.Generator) -> Mesh:
    """A surface of revolution with a random smooth profile, open at the top."""
    knots = rng.uniform(0.12, 0.5, int(rng.integers(3, 7)))
    place = np.linspace(0, 1, 14)
    profile = np.interp(place, np.linspace(0, 1, len(knots)), knots)
    profile = np.convolve(np.r_[profile[:1], profile, profile[-1:]], (0.25, 0.5, 0.25), mode="valid")
    return revolve(24, np.r_[1e-3, profile], np.r_[-0.5, place - 0.5])


def _leaves(rng: np.random.Generator) -> Mesh:
    """Leaves in a ball, most facing outward."""
    count = int(rng.integers(90, 200))
    outward = rng.standard_normal((count, 3))
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    centre = 0.42 * outward * rng.uniform(0.3, 1, (count, 1)) ** 0.4
    facing = outward + rng.normal(0, 0.4, (count, 3))
    side = np.cross(facing, rng.standard_normal((count, 3)))
    side *= rng.uniform(0.04, 0.09, (count, 1)) / np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(facing, side) * 1.4
    vertices = np.stack((centre - side, centre - up, centre + side, centre + up), axis=1).reshape(-1, 3)
    corner = 4 * np.arange(count)[:, None]
    return vertices, np.concatenate((corner + np.array([0, 1, 2]), corner + np.array([0, 2, 3])))
