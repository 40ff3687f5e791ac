"""``lotus2 export``: write a model as ONNX graphs, for ONNX Runtime, TensorRT and others."""

from __future__ import annotations

import argparse
from pathlib import Path

from lotus2_ros.config import Config, add_option, walk
from lotus2_ros.model.export.export import PRECISIONS, export

FORMATS = ("onnx",)
TASKS = "model.tasks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "bundle", nargs="?", type=Path, metavar="BUNDLE", help="a bundle or released files (default: the bundled model)"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for the graphs")
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="of the files (default: onnx)")
    parser.add_argument(
        "--size",
        type=parse_size,
        metavar="HxW",
        help="height and width of the image that the graphs take (default: as the model processes a 4:3 image)",
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="fp32", help="of weights and activations (default: fp32)"
    )
    parser.add_argument("--no-check", action="store_true", help="do not compare the graphs with torch")
    add_option(parser, "--tasks", TASKS, dict(walk())[TASKS], "What to export; auto: all tasks of the model")


def parse_size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected HxW, height and width in pixels, got {text!r}")
    return int(height), int(width)


def run(args: argparse.Namespace) -> int:
    tasks = Config().updated({TASKS: getattr(args, TASKS)}).model.wanted_tasks
    manifest = export(
        args.bundle,
        args.output,
        size=args.size,
        precision=args.precision,
        tasks=tasks,
        check=not args.no_check,
        say=lambda line: print(line, flush=True),
    )
    size = sum(file.stat().st_size for file in args.output.iterdir()) / 1e9
    height, width = manifest.size
    print(f"{args.output}: {manifest.precision}, images of {width}x{height}, {size:.2f} GB")
    print(f"License: {manifest.licence}")
    return 0
