"""docs/images/coverage.png: how often depth is within so many standard deviations, against how often it should be.

    python -m benchmarks.pictures_coverage FRAMES [--output docs/images/coverage.png]

A line for each frame.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.geometry.field import WRONG
from benchmarks.geometry.sigma import Scene, errors_and_sigma, scenes_by_set

CASES = (("200 or 500 points", 0, 0.0), (f"{WRONG:.0%} of them wrong", 0, WRONG), ("64 points", 64, 0.0))
SHARES = torch.linspace(0.02, 0.98, 49)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", type=Path, help="folder of recorded frames")
    parser.add_argument("--output", type=Path, default=Path("docs/images/coverage.png"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = [scene for part in scenes_by_set(args.frames).values() for scene in part]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, len(CASES), sharey=True)
    for axis, (title, points, wrong) in zip(axes, CASES, strict=True):
        axis.set_title(title, fontsize=9)
        _draw(axis, found, points, wrong)
    axes[0].set_ylabel("share of the pixels inside")
    figure.savefig(args.output, dpi=100)


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
    main()
