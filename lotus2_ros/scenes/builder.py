"""Putting a world together: shapes, scaled and placed, each with a surface of its own."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lotus2_ros.scenes import shapes, textures
from lotus2_ros.scenes.assets import Assets

Point = Sequence[float] | np.ndarray
Size = tuple[float, float, float]

# Where there are assets: the share of surfaces that are photographs.
PHOTOGRAPHED = 0.4


@dataclass(frozen=True)
class Surface:
    """Linear colors (3, 3) along the values of a pattern of the bank, `tile` meters per tile.

    With `photo` a texture of the assets takes the place of both. In [0, 1]: `gloss` of a highlight, own light `glow`,
    `mirror` the share of light that is reflected (Schlick's R0), `clear` the share that comes from behind, of a
    "sheet".
    """

    pattern: int
    tile: float
    colors: np.ndarray
    gloss: float = 0.0
    glow: float = 0.0
    mirror: float = 0.0
    clear: float = 0.0
    photo: int = -1


@dataclass(frozen=True)
class ScenePart:
    """A mesh in world coordinates; its pattern lies in its own frame (columns of `rotation`, at `origin`) or where `uv`
    (triangles, 3, 2) says."""

    vertices: np.ndarray
    triangles: np.ndarray
    rotation: np.ndarray
    origin: np.ndarray
    surface: Surface
    uv: np.ndarray | None = None


@dataclass
class Builder:
    """Collects parts, x and y on the ground and z up, meters; `at` gives a builder in a moved frame of that world.
    With `assets` some things are models of them and some surfaces photographs."""

    rng: np.random.Generator
    parts: list[ScenePart] = field(default_factory=list)
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    origin: np.ndarray = field(default_factory=lambda: np.zeros(3))
    assets: Assets | None = None

    def at(self, x: float, y: float, z: float = 0.0, yaw: float = 0.0) -> Builder:
        return self.turned(turn_z(yaw), x, y, z)

    def turned(self, rotation: np.ndarray, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Builder:
        origin = self.origin + self.rotation @ np.array([x, y, z])
        return Builder(self.rng, self.parts, self.rotation @ rotation, origin, self.assets)

    def add(self, shape: str, size: Size, center: Point, surface: Surface, rotation: np.ndarray | None = None) -> None:
        """A shape of `shapes.unit` that fills `size` around `center`."""
        vertices, triangles = shapes.unit(shape, self.rng)
        frame = self.turned(np.eye(3) if rotation is None else rotation, *center)
        frame._place(vertices * np.asarray(size), triangles, surface)

    def tube(
        self,
        path: Sequence[Point] | np.ndarray,
        radius: float | np.ndarray,
        surface: Surface,
        sides: int = 8,
        closed: bool = False,
    ) -> None:
        """Round (or, with 4 sides, square) along the polyline `path`."""
        self._place(*shapes.sweep(np.asarray(path, float), radius, sides, closed), surface)

    def ring(self, radius: float, thickness: float, center: Point, surface: Surface, sides: int = 8) -> None:
        """A torus that stands in the plane of x and z."""
        angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        circle = np.c_[np.cos(angle), 0 * angle, np.sin(angle)]
        self.tube(radius * circle + np.asarray(center), thickness, surface, sides, closed=True)

    def model(self, share: float, sizes: tuple[float, float], size: float | None = None) -> bool:
        """With probability `share` a model of the assets, of those between two `sizes`, brought to `size`; whether."""
        if self.assets is None or not self.chance(share):
            return False
        number = int(self.rng.choice(self.assets.of_size(*sizes)))
        scale = self.uniform(0.8, 1.25) * (1.0 if size is None else size / self.assets.size[number])
        for piece in self.assets.model(number):
            vertices = scale * piece.vertices.reshape(-1, 3)
            painted = self.surface("noise", plain=1.0, photographed=0.0)
            if piece.texture < 0:
                painted = replace(painted, colors=np.tile(piece.color, (3, 1)))
            else:
                painted = replace(painted, photo=piece.texture, tile=scale * _tile(piece.vertices, piece.uv))
            self._place(vertices, np.arange(len(vertices)).reshape(-1, 3), painted, piece.uv)
        return True

    def _place(
        self, vertices: np.ndarray, triangles: np.ndarray, surface: Surface, uv: np.ndarray | None = None
    ) -> None:
        placed = vertices @ self.rotation.T + self.origin
        self.parts.append(ScenePart(placed, triangles, self.rotation, self.origin, surface, uv))

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def integer(self, low: int, high: int) -> int:
        """One of low ... high - 1."""
        return int(self.rng.integers(low, high))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def surface(
        self,
        *families: str,
        tile: float = 0.6,
        plain: float = 0.35,
        bright: tuple[float, float] = (0.1, 0.95),
        hue: tuple[float, float] | None = None,
        photographed: float = PHOTOGRAPHED,
    ) -> Surface:
        """A random surface with a pattern of the families (any if none). With probability `plain` it has almost one
        color. With assets, the others have a photograph with probability `photographed`."""
        chosen = str(self.rng.choice(families or textures.FAMILIES))
        first = self._color(bright, hue)
        almost = self.chance(plain)
        nearness = self.uniform(0.75, 0.97) if almost else self.uniform(0.0, 0.7)
        others = [nearness * first + (1 - nearness) * self._color(bright, hue) for _ in range(2)]
        surface = Surface(
            pattern=int(self.rng.choice(textures.family(chosen))),
            tile=tile * float(np.exp(self.rng.normal(0, 0.4))),
            colors=np.stack((first, *others)),
            gloss=self.uniform(0, 0.8) if self.chance(0.3) else 0.0,
        )
        if self.assets is not None and self.chance(photographed * (0.5 if almost else 1.0)):
            return replace(surface, photo=int(self.rng.choice(self.assets.rich)))
        return surface

    def leaves(self, tile: float) -> Surface:
        """Green, mostly."""
        hue = (0.15, 0.4) if self.chance(0.85) else None
        return self.surface("leafage", "leafage", "noise", tile=tile, plain=0.2, bright=(0.06, 0.55), hue=hue)

    def paint(self, low: float = 0.1, high: float = 0.95) -> Surface:
        """Of one color: metal, plastic, lacquer."""
        return self.surface("noise", plain=1.0, bright=(low, high))

    def dull(self, surface: Surface) -> Surface:
        """Almost gray: asphalt, concrete, stone."""
        gray = surface.colors.mean(-1, keepdims=True)
        return replace(surface, colors=gray + self.uniform(0, 0.35) * (surface.colors - gray))

    def looking_glass(self) -> Surface:
        return replace(self.paint(0.6, 0.9), mirror=self.uniform(0.75, 0.95), gloss=0.0)

    def glass(self) -> Surface:
        return replace(self.paint(0.3, 0.7), clear=self.uniform(0.75, 0.95), mirror=self.uniform(0.04, 0.15), gloss=0.3)

    def polished(self, surface: Surface) -> Surface:
        """It reflects a little, and more at a grazing angle."""
        return replace(surface, mirror=self.uniform(0.02, 0.15))

    def _color(self, bright: tuple[float, float], hue: tuple[float, float] | None) -> np.ndarray:
        """Linear. Many things are gray, and of those with a color many are of wood, earth, skin."""
        saturation = self.rng.beta(1, 14) if hue is None and self.chance(0.4) else self.rng.beta(1.1, 3.5)
        if hue is None:
            hue = (0.04, 0.13) if self.chance(0.4) else (-0.05, 0.7) if self.chance(0.85) else (0.0, 1.0)
        return np.array(colorsys.hsv_to_rgb(self.uniform(*hue) % 1, saturation, self.uniform(*bright))) ** 2.2


def _tile(vertices: np.ndarray, uv: np.ndarray) -> float:
    """Meters per side of a texture, the median over the edges of triangles (M, 3, 3) with uv (M, 3, 2)."""
    long, on_texture = (np.linalg.norm(np.diff(each, axis=1), axis=-1) for each in (vertices, uv.astype(np.float64)))
    return float(np.clip(np.median(long / np.maximum(on_texture, 1e-4)), 1e-3, 1e3))


def turn_z(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def turn_x(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def any_rotation(rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q
