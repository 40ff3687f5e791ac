"""Putting a world together: unit shapes, scaled and placed, each with a surface of its own."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from lotus2_ros.scenes import textures


@dataclass(frozen=True)
class Surface:
    """Linear colours mixed by a pattern of the bank, `tile` metres per tile; `gloss` in [0, 1]; own light `glow`."""

    pattern: int
    tile: float
    colors: tuple[np.ndarray, np.ndarray]
    gloss: float = 0.0
    glow: float = 0.0


@dataclass(frozen=True)
class Part:
    """A mesh in world coordinates; its pattern lies in its own frame (columns of `rotation`, at `origin`)."""

    vertices: np.ndarray
    triangles: np.ndarray
    rotation: np.ndarray
    origin: np.ndarray
    surface: Surface


@dataclass
class Builder:
    """Collects parts, x and y on the ground and z up, metres; `at` gives a builder in a moved frame of that world."""

    rng: np.random.Generator
    parts: list[Part] = field(default_factory=list)
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    origin: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def at(self, x: float, y: float, z: float = 0.0, yaw: float = 0.0) -> Builder:
        origin = self.origin + self.rotation @ np.array([x, y, z])
        return Builder(self.rng, self.parts, self.rotation @ turn_z(yaw), origin)

    def add(
        self,
        shape: str,
        size: tuple[float, float, float],
        center: tuple[float, float, float],
        surface: Surface,
        rotation: np.ndarray | None = None,
    ) -> None:
        """A "box", "cylinder", "cone", "ball" or "blob" that fills `size` around `center`."""
        vertices, triangles = _blob(self.rng) if shape == "blob" else _unit_shape(shape)
        rotation = self.rotation if rotation is None else self.rotation @ rotation
        origin = self.origin + self.rotation @ np.asarray(center, float)
        self.parts.append(Part(vertices * np.asarray(size) @ rotation.T + origin, triangles, rotation, origin, surface))

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def surface(
        self, *families: str, tile: float = 0.6, plain: float = 0.35, bright: tuple[float, float] = (0.1, 0.95)
    ) -> Surface:
        """A random one with a pattern of the families (any if none); with probability `plain` almost of one colour."""
        chosen = str(self.rng.choice(families or textures.FAMILIES))
        first = self._color(bright)
        other = self._color(bright)
        nearness = self.uniform(0.75, 0.97) if self.chance(plain) else self.uniform(0.0, 0.7)
        return Surface(
            pattern=int(self.rng.choice(textures.family(chosen))),
            tile=tile * float(np.exp(self.rng.normal(0, 0.4))),
            colors=(first, nearness * first + (1 - nearness) * other),
            gloss=self.uniform(0, 0.8) if self.chance(0.3) else 0.0,
        )

    def _color(self, bright: tuple[float, float]) -> np.ndarray:
        saturation = self.rng.beta(1.1, 3.5)
        value = self.uniform(*bright)
        return np.array(colorsys.hsv_to_rgb(self.rng.random(), saturation, value)) ** 2.2


def turn_z(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def any_rotation(rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


@lru_cache(maxsize=8)
def _unit_shape(shape: str) -> tuple[np.ndarray, np.ndarray]:
    """Vertices within [-.5, .5]^3 and triangles, normals outward."""
    if shape == "box":
        return _revolve(4, (0.0, 0.5**0.5, 0.5**0.5, 0.0), (-0.5, -0.5, 0.5, 0.5), offset=np.pi / 4)
    if shape == "cylinder":
        return _revolve(28, (0.0, 0.5, 0.5, 0.0), (-0.5, -0.5, 0.5, 0.5))
    if shape == "cone":
        return _revolve(28, (0.0, 0.5, 0.0), (-0.5, -0.5, 0.5))
    if shape == "ball":
        angle = np.linspace(-np.pi / 2, np.pi / 2, 18)
        return _revolve(32, tuple(0.5 * np.cos(angle)), tuple(0.5 * np.sin(angle)))
    raise ValueError(f"expected a shape among box, cylinder, cone, ball, blob; got {shape!r}")


def _revolve(
    sides: int, radii: tuple[float, ...], heights: tuple[float, ...], offset: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """The surface of revolution around z through a profile of (radius, height), bottom to top."""
    angle = offset + 2 * np.pi * np.arange(sides) / sides
    ring = np.stack((np.cos(angle), np.sin(angle)), axis=-1)
    vertices = np.concatenate([np.c_[r * ring, np.full(sides, z)] for r, z in zip(radii, heights, strict=True)])
    i = np.arange(sides)
    j = (i + 1) % sides
    triangles = []
    for k in range(len(radii) - 1):
        low, high = k * sides, (k + 1) * sides
        if radii[k] > 1e-9:
            triangles.append(np.stack((low + i, low + j, high + j), axis=-1))
        if radii[k + 1] > 1e-9:
            triangles.append(np.stack((low + i, high + j, high + i), axis=-1))
    return vertices, np.concatenate(triangles).astype(np.uint32)


def _blob(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A ball with smooth dents: cushions, bags, stones, crowns of trees."""
    vertices, triangles = _unit_shape("ball")
    waves = rng.normal(0, 5, (6, 3))
    dents = np.sin(vertices @ waves.T + rng.uniform(0, 6.3, 6)) @ rng.normal(0, 0.07, 6)
    return vertices * np.clip(1 + dents, 0.6, 1.25)[:, None] / 1.25, triangles
