"""The robust line through points of which many are gross outliers, beside least squares that is told the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.geometry.figure import Figure
from lotus2_ros.scale.fit import fit_scale_shift

DRAWS, POINTS, OUTLIERS = 200, 200, 80
SCALE, SHIFT, NOISE = 0.7, 0.05, 0.01
TRUTH = torch.tensor([SCALE, SHIFT], dtype=torch.float64)
PLACES = ("anywhere in the range", "nearer by up to the range", "farther by up to the range")


def figures(frames: Path | None, quick: bool) -> Iterator[Figure]:
    for place in PLACES:
        for noise in ("1 % of the value", "1 % of the range"):
            yield _beside_the_told(place, noise)
    for place in PLACES:
        x, y = _draw(torch.Generator().manual_seed(0), place, noise="none")
        worst = (_fit(x, y) - TRUTH).abs().max()
        yield Figure("fit_scale_shift: largest error", f"40 % outliers {place}, no noise", float(worst), "", 1e-6)
    yield _weights()


def _beside_the_told(place: str, noise: str) -> Figure:
    x, y = _draw(torch.Generator().manual_seed(0), place, noise)
    inliers = _least_squares(x[:, OUTLIERS:], y[:, OUTLIERS:], torch.ones(DRAWS, POINTS - OUTLIERS))
    ours, told, plain = (
        (lines - TRUTH).abs().median(dim=0).values
        for lines in (_fit(x, y), inliers, _least_squares(x, y, torch.ones_like(x)))
    )
    scale, shift = (ours / told).tolist()
    beside = f"scale {scale:.2f}, shift {shift:.2f}; least squares with the outliers {float((plain / told).max()):.0f}"
    case = f"40 % outliers {place}, noise {noise}"
    return Figure("fit_scale_shift: error over that of the told", case, max(scale, shift), "times", 1.5, beside)


def _weights() -> Figure:
    """How far from weighted least squares, where nothing is an outlier."""
    generator = torch.Generator().manual_seed(0)
    x, noise, weight = torch.rand(3, DRAWS, POINTS, generator=generator).double()
    y = SCALE * (x + 0.1 * (noise - 0.5)) + SHIFT
    weight = 10**weight
    wanted = _least_squares(x, y, weight)
    off, ignored = (
        float(((lines - wanted).abs() / SCALE).median(dim=0).values.max())
        for lines in (_fit(x, y, weight), _least_squares(x, y, torch.ones_like(x)))
    )
    case = "weights of 1 to 10, even noise in 10 % of the range"
    beside = f"least squares without weights: {ignored:.1g}"
    return Figure("fit_scale_shift: off weighted least squares", case, off, "of the scale", 1e-3, beside)


def _draw(generator: torch.Generator, place: str, noise: str) -> tuple[Tensor, Tensor]:
    """Disparity and inverse depth (DRAWS, POINTS) of a line, the first points elsewhere."""
    x = torch.rand(DRAWS, POINTS, generator=generator).double()
    line = SCALE * x + SHIFT
    size = {"none": 0.0, "1 % of the value": NOISE * line, "1 % of the range": NOISE * SCALE}[noise]
    y = line + size * torch.randn(x.shape, generator=generator).double()
    draw = SCALE * torch.rand(x.shape, generator=generator).double()
    gross = dict(zip(PLACES, (SHIFT + draw, line + draw, line - draw), strict=True))[place]
    return x, torch.where(torch.arange(POINTS) < OUTLIERS, gross, y)


def _fit(x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """Scale and shift (DRAWS, 2)."""
    return torch.stack(fit_scale_shift(x, y, torch.ones_like(x) if weight is None else weight)[:2], dim=1)


def _least_squares(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Scale and shift (DRAWS, 2) of weighted least squares."""
    root = weight.double().sqrt()
    design = torch.stack((x, torch.ones_like(x)), dim=2) * root[..., None]
    return torch.linalg.lstsq(design, (y * root)[..., None]).solution[..., 0]
