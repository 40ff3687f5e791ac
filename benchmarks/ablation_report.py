"""What `benchmarks.ablation` found: a table beside the paper's, the same as JSON, and pictures."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.timing import machine
from lotus2_ros.evaluation.tables import markdown, published_table
from lotus2_ros.view.preview import colored, show

CELL = 1.5  # inches
# Quantiles of the true disparity, beyond which all has one color.
SHADES = torch.tensor([0.02, 0.98])

# Figures of each row, one mapping for each seed.
Found = Mapping[str, Sequence[Mapping[str, float]]]


def save_report(folder: Path, found: Found, settings: Mapping[str, int]) -> None:
    """ablation.md and ablation.json."""
    folder.mkdir(parents=True, exist_ok=True)
    told = ", ".join(f"{count} {name}" for name, count in settings.items())
    heading = f"{machine(torch.device('cpu'))}; {told}\n\n"
    (folder / "ablation.md").write_text(heading + table(found) + "\n")
    (folder / "ablation.json").write_text(json.dumps({"settings": settings, "rows": found}, indent=2) + "\n")


def table(found: Found) -> str:
    """Mean and standard deviation over the seeds; of the paper's rows, in its order, also its AbsRel in per cent."""
    paper = published_table("ablation")
    published = {dataset: column for column, (dataset, metric) in enumerate(paper.columns) if metric == "AbsRel"}
    if not found.keys() & paper.methods.keys():
        published = {}
    figures = list(dict.fromkeys(figure for of_row in found.values() for figure in of_row[0]))
    header = ["", *figures, "seeds", *(f"{dataset}, paper" for dataset in published)]
    rows = []
    for name in [*(name for name in paper.methods if name in found), *(n for n in found if n not in paper.methods)]:
        measured = [_spread([of_seed[figure] for of_seed in found[name] if figure in of_seed]) for figure in figures]
        values = paper.methods.get(name)
        printed = [None if values is None else values[column] for column in published.values()]
        rows.append([name, *measured, len(found[name]), *printed])
    return markdown(header, rows)


def _spread(values: Sequence[float]) -> str | None:
    if not values:
        return None
    mean = f"{statistics.mean(values):.3f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.3f}"


def save_panel(
    path: Path, images: Sequence[Tensor], truths: Sequence[Tensor], depths: Mapping[str, Sequence[Tensor]]
) -> None:
    """A line for each image (H, W, 3): it, the disparity of its true depth (H, W), and of the depths by their names."""
    columns = {"truth": truths, **depths}
    heights = [CELL * image.shape[0] / image.shape[1] for image in images]
    figure = Figure(figsize=((1 + len(columns)) * CELL, sum(heights) + 0.3), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(images), 1 + len(columns), squeeze=False, height_ratios=heights)
    for image, line, *of_image in zip(images, axes, *columns.values(), strict=True):
        known = (1 / of_image[0])[torch.isfinite(of_image[0])]
        low, high = torch.quantile(known[:: len(known) // 10**6 + 1], SHADES).tolist()
        show(line[0], image)
        for axis, depth in zip(line[1:], of_image, strict=True):
            show(axis, colored(1 / depth, low, high, "magma"))
    for axis, title in zip(axes[0], ("image", *columns), strict=True):
        axis.set_title(title, fontsize=7, pad=3)
    figure.tight_layout(pad=0.2, h_pad=0.2, w_pad=0.2)
    figure.savefig(path, facecolor="white")
