"""``lotus2 train``: one training run, from data to bundle."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from lotus2_ros.config.output import check_output, mark, marked_by
from lotus2_ros.training.config import read_config
from lotus2_ros.training.run import train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="YAML file of the run; config/train has examples")
    parser.add_argument("--output", type=Path, required=True, help="folder for the trained model")
    parser.add_argument(
        "--work", type=Path, help="folder for data, checkpoints and curves (default: out/train/<name of the file>)"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="processes that render scenes (default: %(default)s)"
    )
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        dest="changes",
        help="change keys of the run; a key is dotted and has the name of its stage (stages.core.steps=10)",
    )


def run(args: argparse.Namespace) -> int:
    if args.workers < 1:
        raise ValueError(f"--workers: expected a positive number, got {args.workers}")
    config = read_config(args.config, args.changes)
    work = args.work or Path("out/train") / args.config.stem
    output = check_output(args.output, "train", [args.config])
    check_output(work, "train", [args.config], written_by=work_of)
    started = time.monotonic()
    mark(work, "train")
    train(config, work, output, args.workers)
    mark(output, "train")
    print(f"{args.output}: written after {(time.monotonic() - started) / 60:.0f} minutes")
    return 0


def work_of(folder: Path) -> str | None:
    """The command that made a work folder; those of earlier versions are known by their scenes and curves."""
    is_work = folder.is_dir() and ((folder / "scenes").is_dir() or any(folder.glob("*.jsonl")))
    return "train" if is_work else marked_by(folder)
