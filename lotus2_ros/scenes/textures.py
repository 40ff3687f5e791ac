"""A bank of tileable gray patterns: noise, wood, bricks, tiles, facades, print, cloth.

A surface mixes two colors by one of them, so a pattern has values in [0, 1]. The bank is always the same: a scene's
seed chooses from it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

SIDE = 256
LEVELS = 6

FAMILIES = ("noise", "blotches", "grain", "marble", "planks", "bricks", "tiles", "checks", "stripes", "dots", "cloth",
            "rectangles", "print", "facade", "text", "picture", "gradient", "leafage")  # fmt: skip
VARIANTS = 4


def family(name: str) -> range:
    """Indices into the bank of one family of patterns."""
    start = FAMILIES.index(name) * VARIANTS
    return range(start, start + VARIANTS)


def sample(pattern: Tensor, uv: Tensor, footprint: Tensor) -> Tensor:
    """Values (N,) of `pattern` (N,) at `uv` (N, 2), a tile per unit, low-passed to `footprint` (N,) tiles a pixel."""
    bank = _bank()
    level = torch.log2(footprint.clamp_min(1e-6) * SIDE).round().clamp(0, LEVELS - 1).long()
    position = (uv * SIDE).remainder(SIDE)
    corner = position.floor()
    u, v = (position - corner).unbind(-1)
    x, y = corner.long().remainder(SIDE).unbind(-1)
    right, below = (x + 1) % SIDE, (y + 1) % SIDE
    plane = (level * len(FAMILIES) * VARIANTS + pattern) * SIDE
    row, next_row = (plane + y) * SIDE, (plane + below) * SIDE
    top = torch.lerp(bank[row + x], bank[row + right], u)
    bottom = torch.lerp(bank[next_row + x], bank[next_row + right], u)
    return torch.lerp(top, bottom, v)


@lru_cache(maxsize=1)
def _bank() -> Tensor:
    """All patterns at all levels, (LEVELS * patterns * SIDE * SIDE,) float32; level l is low-passed to 2^l texels."""
    rng = np.random.default_rng(20)
    patterns = [_PAINTERS[name](rng) for name in FAMILIES for _ in range(VARIANTS)]
    bank = torch.from_numpy(np.stack(patterns).astype(np.float32)).clamp(0, 1)
    spectrum = torch.fft.rfft2(bank)
    fy, fx = torch.fft.fftfreq(SIDE)[:, None], torch.fft.rfftfreq(SIDE)[None]
    levels = [bank]
    for level in range(1, LEVELS):
        low_pass = torch.exp(-2 * (torch.pi * 0.5 * 2**level) ** 2 * (fx**2 + fy**2))
        levels.append(torch.fft.irfft2(spectrum * low_pass, s=(SIDE, SIDE)))
    return torch.stack(levels).reshape(-1).contiguous()


def _grid() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    return x, y


def _fractal(rng: np.random.Generator, slope: float, stretch: float = 1.0) -> np.ndarray:
    """Tileable noise of power f^-2 slope, uniform in [0, 1]; `stretch` makes it longer along x."""
    fy, fx = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
    radius = np.hypot(fx * stretch, fy)
    radius[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((SIDE, SIDE))) * radius**-slope
    noise = np.fft.irfft2(spectrum, s=(SIDE, SIDE))
    return noise.ravel().argsort().argsort().reshape(SIDE, SIDE) / SIDE**2


def _cells(
    rng: np.random.Generator, columns: int, rows: int, joint: float, bond: float
) -> tuple[np.ndarray, np.ndarray]:
    """Cells in rows, every other row moved by `bond` cells: a random value per cell, and where the joints are."""
    x, y = _grid()
    row = np.floor(y * rows).astype(int)
    along = x * columns + bond * (row % 2)
    value = rng.random((rows, columns))[row, np.floor(along).astype(int) % columns]
    joints = (along % 1 < joint) | (y * rows % 1 < joint * rows / columns)
    return value, joints


def _noise(rng: np.random.Generator) -> np.ndarray:
    return _fractal(rng, rng.uniform(0.3, 1.6))


def _blotches(rng: np.random.Generator) -> np.ndarray:
    noise = _fractal(rng, rng.uniform(1.2, 2.0))
    return np.clip((noise - rng.uniform(0.4, 0.6)) * 12 + 0.5, 0, 1) * 0.8 + 0.2 * _fractal(rng, 0.5)


def _grain(rng: np.random.Generator) -> np.ndarray:
    return 0.7 * _fractal(rng, 1.2, stretch=rng.uniform(8, 25)) + 0.3 * _fractal(rng, 1.5)


def _marble(rng: np.random.Generator) -> np.ndarray:
    x, y = _grid()
    veins = np.abs(np.sin(np.pi * (rng.integers(1, 4) * x + rng.integers(1, 4) * y) + 8 * _fractal(rng, 1.9)))
    return veins ** rng.uniform(0.3, 0.8)


def _planks(rng: np.random.Generator) -> np.ndarray:
    value, joints = _cells(rng, 2, int(rng.integers(5, 12)), 0.008, 0.5)
    wood = 0.55 * value + 0.45 * _fractal(rng, 1.1, stretch=15)
    return np.where(joints, 0.0, wood)


def _bricks(rng: np.random.Generator) -> np.ndarray:
    value, joints = _cells(rng, int(rng.integers(3, 6)), 2 * int(rng.integers(4, 7)), 0.05, 0.5)
    return np.where(joints, 1.0, 0.5 * value + 0.25 * _fractal(rng, 0.6))


def _tiles(rng: np.random.Generator) -> np.ndarray:
    count = int(rng.integers(3, 8))
    value, joints = _cells(rng, count, count, rng.uniform(0.02, 0.06), 0.0)
    return np.where(joints, 0.0, 0.7 + rng.uniform(0.05, 0.3) * (value - 0.5) + 0.15 * _fractal(rng, 1.2))


def _checks(rng: np.random.Generator) -> np.ndarray:
    x, y = _grid()
    count = 2 * int(rng.integers(1, 5))
    return 0.85 * ((np.floor(x * count) + np.floor(y * count)) % 2) + 0.15 * _fractal(rng, 1.0)


def _stripes(rng: np.random.Generator) -> np.ndarray:
    x, _ = _grid()
    wave = np.sin(2 * np.pi * x * int(rng.integers(3, 14)))
    return np.clip(wave * rng.uniform(1, 8) * 0.5 + 0.5, 0, 1) * 0.85 + 0.15 * _fractal(rng, 1.0)


def _dots(rng: np.random.Generator) -> np.ndarray:
    x, y = _grid()
    count = int(rng.integers(3, 10))
    inside = np.hypot(x * count % 1 - 0.5, y * count % 1 - 0.5) < rng.uniform(0.15, 0.4)
    return 0.85 * inside + 0.15 * _fractal(rng, 0.8)


def _cloth(rng: np.random.Generator) -> np.ndarray:
    x, y = _grid()
    count = int(rng.integers(20, 50))
    weave = 0.5 + 0.25 * np.sin(2 * np.pi * count * x) + 0.25 * np.sin(2 * np.pi * count * y)
    return 0.5 * weave + 0.5 * _fractal(rng, 1.4)


def _rectangles(rng: np.random.Generator) -> np.ndarray:
    canvas = np.full((SIDE, SIDE), rng.random())
    for _ in range(int(rng.integers(12, 40))):
        x, y = rng.integers(0, SIDE, 2)
        width, height = rng.integers(8, SIDE // 2, 2)
        canvas[y : y + height, x : x + width] = rng.random()
    return 0.9 * canvas + 0.1 * _fractal(rng, 1.0)


def _print(rng: np.random.Generator) -> np.ndarray:
    """Paragraphs and pictures, as on a poster, a book or a box."""
    canvas = np.full((SIDE, SIDE), rng.uniform(0.8, 1.0))
    for top in range(10, SIDE - 10, int(rng.integers(8, 18))):
        x = 12
        while x < SIDE - 20:
            word = int(rng.integers(4, 28))
            canvas[top : top + 5, x : min(x + word, SIDE - 12)] = rng.uniform(0.0, 0.2)
            x += word + 5
    for _ in range(int(rng.integers(1, 3))):
        x, y = rng.integers(10, SIDE // 2, 2)
        width, height = rng.integers(40, SIDE // 2, 2)
        canvas[y : y + height, x : x + width] = _fractal(rng, 1.5)[y : y + height, x : x + width]
    return canvas


def _facade(rng: np.random.Generator) -> np.ndarray:
    """Windows in a wall; each reflects something else."""
    x, y = _grid()
    columns, rows = rng.integers(3, 7, 2)
    u, v = x * columns % 1, y * rows % 1
    margin = rng.uniform(0.15, 0.3)
    pane = (np.abs(u - 0.5) < 0.5 - margin) & (np.abs(v - 0.5) < 0.5 - margin * rng.uniform(0.5, 1.0))
    frame = (np.abs(u - 0.5) < 0.54 - margin) & (np.abs(v - 0.5) < 0.53 - margin / 2) & ~pane
    tone = rng.random((rows, columns))[np.floor(y * rows).astype(int), np.floor(x * columns).astype(int)]
    return np.where(pane, 0.35 * tone * _fractal(rng, 1.8), np.where(frame, 1.0, 0.6 + 0.2 * _fractal(rng, 1.2)))


def _text(rng: np.random.Generator) -> np.ndarray:
    """A few large letters, as on a sign or a package."""
    canvas = np.full((SIDE, SIDE), rng.uniform(0.0, 0.5)) + 0.1 * _fractal(rng, 1.8)
    tall = int(rng.integers(24, 64))
    for top in range(8, SIDE - tall, tall + 12):
        tone = rng.uniform(0.6, 1.0)
        for x in range(12, SIDE - tall, int(0.75 * tall)):
            stroke = tall // 6
            for _ in range(int(rng.integers(2, 5))):
                u, v = (int(step) for step in rng.integers(0, 3, 2) * tall // 4)
                upright = rng.random() < 0.5
                height, width = (tall, stroke) if upright else (stroke, tall // 2)
                y, left = (top, x + u) if upright else (top + v, x)
                canvas[y : y + height, left : left + width] = tone
    return canvas


def _picture(rng: np.random.Generator) -> np.ndarray:
    """Large soft shapes before one another."""
    x, y = _grid()
    canvas = 0.5 * _fractal(rng, 2.0) + 0.5 * y
    for _ in range(int(rng.integers(4, 14))):
        u, v, angle = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), rng.uniform(0, np.pi)
        along = (x - u) * np.cos(angle) + (y - v) * np.sin(angle)
        across = (y - v) * np.cos(angle) - (x - u) * np.sin(angle)
        inside = np.hypot(along / rng.uniform(0.05, 0.35), across / rng.uniform(0.05, 0.25)) < 1
        canvas = np.where(inside, 0.75 * rng.random() + 0.25 * _fractal(rng, 1.4), canvas)
    return canvas


def _gradient(rng: np.random.Generator) -> np.ndarray:
    """Slow shades, with something fine on them."""
    x, y = _grid()
    waves = np.sin(2 * np.pi * (x + rng.random())) + np.sin(2 * np.pi * (rng.integers(0, 2) * x + y + rng.random()))
    return 0.5 + 0.2 * waves + 0.2 * (_fractal(rng, 2.0) - 0.5) + 0.1 * (_fractal(rng, 0.5) - 0.5)


def _leafage(rng: np.random.Generator) -> np.ndarray:
    """Lit leaves before dark gaps, at several scales."""
    leaves = _fractal(rng, 0.8) * _fractal(rng, 1.3)
    return np.clip(1.6 * leaves + 0.25 * (_fractal(rng, 1.8) - 0.5), 0, 1)


_PAINTERS = {
    "noise": _noise, "blotches": _blotches, "grain": _grain, "marble": _marble, "planks": _planks, "bricks": _bricks,
    "tiles": _tiles, "checks": _checks, "stripes": _stripes, "dots": _dots, "cloth": _cloth, "rectangles": _rectangles,
    "print": _print, "facade": _facade, "text": _text, "picture": _picture, "gradient": _gradient,
    "leafage": _leafage,
}  # fmt: skip
