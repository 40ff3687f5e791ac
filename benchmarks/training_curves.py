"""The losses of a training run, a panel for each stage: python -m benchmarks.training_curves WORK --output FILE.png"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from lotus2_ros.training.progress import read_progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder of the run, out/train/NAME")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    # In the order in which they were trained.
    stages = sorted(args.work.glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
    if not stages:
        raise SystemExit(f"{args.work}: expected curves of stages (*.jsonl), found none")
    figure = Figure(figsize=(3.2 * len(stages), 2.6), layout="constrained")
    for axes, path in zip(figure.subplots(1, len(stages), squeeze=False)[0], stages, strict=True):
        lines = read_progress(path)
        axes.plot([line["step"] for line in lines], [line["loss"] for line in lines])
        axes.set_title(f"{path.stem}, {lines[-1]['seconds'] / 60:.0f} min", fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.set_ylabel("loss", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    figure.savefig(args.output, dpi=70)


if __name__ == "__main__":
    main()
