"""Real models and photographs for procedural scenes, from a folder of the user's: none comes with the package.

The folder has `meshes.npz` (models as triangles, concatenated: vertices (N, 3, 3) in meters, z up, standing on z = 0;
uv (N, 3, 2); texture (N,), -1: none; color (N, 3) uint8 where there is none; offsets (models + 1,)), `textures/` with
square images of one size, and `index.json` (`models`: extent_m; `textures`: file, kind, "rich" ones suit any surface).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

FEWEST_TRIANGLES = 12
THINNEST = 0.02  # of a model, its least extent as a share of its largest; what is thinner is a plane or a part
LEVELS = 6


@dataclass(frozen=True)
class Piece:
    """Triangles (M, 3, 3) of a model in meters and their uv (M, 3, 2) in `texture`, or, where that is -1, a linear
    `color`."""

    vertices: np.ndarray
    uv: np.ndarray
    texture: int
    color: np.ndarray


class Assets:
    """`size` (models,): their largest extents in meters; `rich`: textures for any surface."""

    def __init__(self, folder: Path) -> None:
        with np.load(folder / "meshes.npz", allow_pickle=False) as arrays:
            self._arrays = {name: arrays[name] for name in ("vertices", "uv", "texture", "color", "offsets")}
        index = json.loads((folder / "index.json").read_text())
        extents = np.array([model["extent_m"] for model in index["models"]])
        self.size = extents.max(axis=1)
        whole = np.diff(self._arrays["offsets"]) >= FEWEST_TRIANGLES
        self.usable = np.flatnonzero(whole & (extents.min(axis=1) > THINNEST * self.size))
        self.rich = [i for i, texture in enumerate(index["textures"]) if texture["kind"] == "rich"]
        images = [_read(folder / "textures" / each["file"]) for each in index["textures"]]
        level = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
        self._levels = []
        for _ in range(LEVELS):
            self._levels.append(level.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous())
            level = F.avg_pool2d(level, 2)

    def of_size(self, low: float, high: float) -> np.ndarray:
        """Numbers of the models between `low` and `high` meters."""
        return self.usable[(self.size[self.usable] >= low) & (self.size[self.usable] <= high)]

    def model(self, number: int) -> list[Piece]:
        """A model, a piece for each of its textures."""
        start, end = self._arrays["offsets"][number : number + 2]
        vertices, uv, texture, color = (
            self._arrays[name][start:end] for name in ("vertices", "uv", "texture", "color")
        )
        pieces = []
        for one in np.unique(texture):
            chosen = texture == one
            mean = (color[chosen].astype(np.float64).mean(axis=0) / 255) ** 2.2
            pieces.append(Piece(vertices[chosen].astype(np.float64), uv[chosen].astype(np.float32), int(one), mean))
        return pieces

    def sample(self, texture: Tensor, uv: Tensor, footprint: Tensor) -> Tensor:
        """Linear colors (N, 3) of `texture` (N,) at `uv` (N, 2), which wraps around, v up; low-passed to `footprint`
        (N,) of a pixel, in sides of the texture."""
        chosen = torch.log2(footprint.clamp_min(1e-6) * self._levels[0].shape[1]).round().clamp(0, LEVELS - 1)
        colors = torch.zeros(len(uv), 3)
        for number, level in enumerate(self._levels):
            on = chosen == number
            if bool(on.any()):
                colors[on] = _bilinear(level, texture[on], uv[on])
        return (colors / 255) ** 2.2


def _read(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path.name} is not an image")
    return image[..., ::-1]


def _bilinear(images: Tensor, texture: Tensor, uv: Tensor) -> Tensor:
    """(N, 3) of images (T, S, S, 3) uint8."""
    side = images.shape[1]
    position = (torch.stack((uv[:, 0], -uv[:, 1]), dim=-1) * side).remainder(side)
    corner = position.floor()
    u, v = (position - corner).unbind(-1)
    x, y = corner.long().remainder(side).unbind(-1)
    right, below = (x + 1) % side, (y + 1) % side
    top = torch.lerp(images[texture, y, x].float(), images[texture, y, right].float(), u[:, None])
    bottom = torch.lerp(images[texture, below, x].float(), images[texture, below, right].float(), u[:, None])
    return torch.lerp(top, bottom, v[:, None])


@lru_cache(maxsize=1)
def load(folder: Path) -> Assets:
    """Raises ValueError for a folder that is not one of such assets."""
    try:
        return Assets(folder)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder}: not a folder of meshes.npz, index.json and textures ({error})") from None
