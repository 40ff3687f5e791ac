"""Contact sheets: image, truth and results, one row per sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from lotus2_ros.data.sample import Sample
from lotus2_ros.evaluation.measure import predict_stages
from lotus2_ros.geometry.normals import normals_to_color
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.view.preview import colored, show

TITLES = ("image", "true disparity", "core predictor", "sharpened", "true normals", "normals")
CELL = 2.4  # inches
SPARSE = 0.3


def save_contact_sheet(path: Path, estimator: Estimator, samples: Sequence[Sample], steps: int | None) -> None:
    """Write a PNG with one row per sample. Colors of a disparity span its 2nd to 98th percentile."""
    heights = [CELL * sample.image.shape[0] / sample.image.shape[1] for sample in samples]
    figure = Figure(figsize=(len(TITLES) * CELL, sum(heights) + 0.3), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(samples), len(TITLES), squeeze=False, height_ratios=heights)
    for sample, line in zip(samples, axes, strict=True):
        line[0].set_ylabel(sample.name[-24:], fontsize=6)
        for axis, picture in zip(line, _row(sample, predict_stages(estimator, sample.image, steps)), strict=True):
            if picture is None:
                axis.axis("off")
            else:
                show(axis, picture)
    for axis, title in zip(axes[0], TITLES, strict=True):
        axis.set_title(title, fontsize=9, pad=3)
    figure.tight_layout(pad=0.2, h_pad=0.2, w_pad=0.2)
    figure.savefig(path, facecolor="white")


def _row(sample: Sample, geometries: dict[str, Geometry]) -> list[Tensor | None]:
    core, sharp = geometries["core"], geometries.get("sharp")
    return [
        sample.image,
        None if sample.depth is None else _shades(_thickened(1 / sample.depth)),
        None if core.disparity is None else _shades(core.disparity.cpu()),
        None if sharp is None or sharp.disparity is None else _shades(sharp.disparity.cpu()),
        None if sample.normals is None else normals_to_color(sample.normals),
        None if core.normals is None else normals_to_color(core.normals.cpu()),
    ]


def _thickened(disparity: Tensor) -> Tensor:
    """A sparse disparity with its points enlarged: a small picture would not show single lidar points."""
    known = torch.isfinite(disparity)
    if known.float().mean() > SPARSE:
        return disparity
    reach = 1 + disparity.shape[1] // 200
    nearest = F.max_pool2d(disparity.where(known, -torch.inf)[None], 2 * reach + 1, 1, reach)[0]
    return nearest.masked_fill(nearest.isinf(), torch.nan)


def _shades(disparity: Tensor) -> Tensor | None:
    known = disparity[torch.isfinite(disparity)]
    low, high = torch.quantile(known[:: len(known) // 10**6 + 1], torch.tensor([0.02, 0.98])).tolist()
    return colored(disparity, low, max(high, low + 1e-6), "magma")
