"""How often depth is within so many standard deviations, against how often it should be, for each frame.

python -m benchmarks.pictures_coverage FRAMES [OUTPUT]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.geometry.field import WRONG
from benchmarks.geometry.sigma import Scene, errors_and_sigma, scenes_by_set

OUTPUT = "docs/images/coverage.png"
CASES = (("200 or 500 points", 0, 0.0), (f"{WRONG:.0%} of them wrong", 0, WRONG), ("64 points", 64, 0.0))
SHARES = torch.linspace(0.02, 0.98, 49)


def main() -> int:
    torch.set_num_threads(1)
    found = [scene for part in scenes_by_set(Path(sys.argv[1])).values() for scene in part]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, len(CASES), sharey=True)
    for axis, (title, points, wrong) in zip(axes, CASES, strict=True):
        axis.set_title(title, fontsize=9)
        _draw(axis, found, points, wrong)
    axes[0].set_ylabel("share of the pixels inside")
    figure.savefig(sys.argv[2] if len(sys.argv) > 2 else OUTPUT, dpi=100)
    return 0


def _draw(axis: Axes, found: Sequence[Scene], points: int, wrong: float) -> None:
    deviations = 2**0.5 * torch.erfinv(SHARES)  # half widths of the intervals of a normal distribution
    for scene in found:
        measured = errors_and_sigma(scene, points, is_local=True, wrong=wrong, seed=0)
        if measured is not None:
            truth, depth, sigma = measured
            ratio = ((truth - depth).abs() / sigma).sort().values
            inside = torch.searchsorted(ratio, deviations) / len(ratio)
            axis.plot(SHARES, inside, color="tab:blue", linewidth=0.8)
    axis.plot((0, 1), (0, 1), color="black", linewidth=0.8, linestyle="--")
    axis.set_xlabel("share that should be")
    axis.grid(alpha=0.3)


if __name__ == "__main__":
    sys.exit(main())
