"""``lotus2 evaluate``: measure a model on held-out scenes, recorded frames and the data sets of the paper's tables."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lotus2_ros.config.output import check_output, marked_by
from lotus2_ros.data.benchmarks import BENCHMARKS
from lotus2_ros.evaluation.evaluate import Evaluation

DEFAULTS = Evaluation()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", default="", help="bundle, or folder in the released layout (default: the bundled model)"
    )
    parser.add_argument(
        "--views",
        type=int,
        default=DEFAULTS.views,
        help="held-out views of each kind of scene, and as many of near objects (default: %(default)s)",
    )
    parser.add_argument(
        "--sequences",
        type=int,
        default=DEFAULTS.sequences,
        help="held-out sequences of a moving camera in each kind of place (default: %(default)s)",
    )
    parser.add_argument(
        "--first-seed",
        type=int,
        default=DEFAULTS.first_seed,
        help="seed of the first held-out scene (default: %(default)s)",
    )
    parser.add_argument("--frames", type=Path, nargs="*", default=[], metavar="DIR",
                        help="folders with rgb.png, depth.png and intrinsics.json, or folders of these")  # fmt: skip
    parser.add_argument("--benchmarks", nargs="*", default=[], metavar="NAME=PATH",
                        help=f"data sets and their folders: {', '.join(BENCHMARKS)}")  # fmt: skip
    parser.add_argument("--steps", type=int, help="sharpener steps; 0: none (default: the model's own)")
    parser.add_argument(
        "--output", type=Path, default=Path("out/evaluate"), help="folder for the report (default: %(default)s)"
    )
    parser.add_argument("--resume", action="store_true", help="continue the evaluation in --output")


def run(args: argparse.Namespace) -> int:
    benchmarks = parse_benchmarks(args.benchmarks)
    check_output(args.output, "evaluate", [*args.frames, *benchmarks.values()], written_by=report_of)
    evaluation = Evaluation(
        model=args.model,
        views=args.views,
        sequences=args.sequences,
        first_seed=args.first_seed,
        frames=args.frames,
        benchmarks=benchmarks,
        steps=args.steps,
    )
    print(evaluation.run(args.output, resume=args.resume))
    return 0


def parse_benchmarks(texts: Sequence[str]) -> dict[str, Path]:
    """NAME=PATH each. Raises ValueError on an unknown name, a missing path, and a name given twice."""
    found: dict[str, Path] = {}
    for text in texts:
        name, _, path = text.partition("=")
        if name not in BENCHMARKS or not path:
            raise ValueError(f"expected a benchmark as NAME=PATH with a name of {', '.join(BENCHMARKS)}; got {text!r}")
        if name in found:
            raise ValueError(f"expected folders and benchmarks of different names, got {name} twice")
        found[name] = Path(path)
    return found


def report_of(folder: Path) -> str | None:
    """The command that made a folder; evaluations of earlier versions are known by their settings."""
    return "evaluate" if (folder / "settings.json").is_file() else marked_by(folder)
