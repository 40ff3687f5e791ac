"""``lotus2 infer``: images in; arrays, a preview and a point cloud out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from lotus2_ros.config import add_option, walk
from lotus2_ros.config.errors import InputError, RunError
from lotus2_ros.config.output import check_output, mark, result_folder
from lotus2_ros.geometry.calibration import Calibration
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.image_files import read_rgb
from lotus2_ros.inference.loading import load
from lotus2_ros.model.image_size import ImageSizeError

Intrinsics: TypeAlias = tuple[float, float, float, float]  # fx, fy, cx, cy in pixels, integer pixel centers

# Option -> parameter, whose default and help it takes.
OPTIONS = {
    "--model": "model.path",
    "--tasks": "model.tasks",
    "--posterior": "model.posterior",
    "--seed": "model.seed",
    "--samples": "model.samples",
    "--dtype": "model.dtype",
    "--timestep-dtype": "model.timestep_dtype",
    "--process-resolution": "model.process_resolution",
    "--device": "model.device",
    "--engine": "model.engine",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="results go to DIR/<name of the image>/"
    )
    parser.add_argument(
        "--sharpen-steps",
        type=int,
        default=0,
        metavar="N",
        help="Euler steps of the detail sharpener; 0: do not sharpen (default: 0)",
    )
    parser.add_argument(
        "--intrinsics",
        type=parse_intrinsics,
        metavar="FX,FY,CX,CY",
        help="camera intrinsics in pixels, with integer pixel centers; also writes depth and a point cloud",
    )
    fields = dict(walk())
    for option, name in OPTIONS.items():
        add_option(parser, option, name, fields[name])


def parse_intrinsics(text: str) -> Intrinsics:
    try:
        fx, fy, cx, cy = (float(value) for value in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected fx,fy,cx,cy, four numbers in pixels, got {text!r}") from None
    return fx, fy, cx, cy


def run(args: argparse.Namespace) -> int:
    check_images(args.images, args.output)
    output = check_output(args.output, "infer", args.images)
    parameters = {name: getattr(args, name) for name in OPTIONS.values()}
    if args.sharpen_steps:
        parameters["sharp.steps"] = args.sharpen_steps
    estimator = load(parameters=parameters)
    model = estimator.model
    if args.sharpen_steps and not any(map(model.has_sharpener, model.tasks)):
        raise ValueError(f"{model.name} has no detail sharpener; expected --sharpen-steps 0")
    mark(output, "infer")
    failures = []
    for path in args.images:
        try:
            process(estimator, path, args)
        except (InputError, ImageSizeError) as error:  # of this image; the others are as good
            failures.append(str(error) if str(path) in str(error) else f"{path}: {error}")
            if len(args.images) > 1:
                print(f"skipped: {failures[-1]}", file=sys.stderr)
    if len(failures) == len(args.images):
        raise ValueError(failures[0])
    if failures:
        raise RunError(f"{len(failures)} of {len(args.images)} images have no results")
    return 0


def process(estimator: Estimator, path: Path, args: argparse.Namespace) -> None:
    """Write the results of one image. Raises InputError and ImageSizeError."""
    image = read_rgb(path)
    height, width = image.shape[:2]
    camera = None if args.intrinsics is None else camera_of(args.intrinsics, width, height, path)
    geometry = estimator.predict(image, camera)
    seconds = sum(geometry.latency.values())
    if args.sharpen_steps:
        geometry = estimator.sharpen(geometry).result()
        seconds += sum(geometry.latency.values())
    folder = result_folder(args.output, path)
    geometry.save(folder)
    print(f"{path}: {1000 * seconds:.0f} ms -> {folder}", flush=True)


def camera_of(intrinsics: Intrinsics, width: int, height: int, path: Path) -> Camera:
    """The camera of an image; a line on stderr if the intrinsics are hardly right."""
    camera = Camera.from_intrinsics(width, height, *intrinsics)
    if doubt := Calibration(width, height, tuple(camera.K.flatten().tolist())).doubt(rectified=False):
        print(f"{path}: {doubt}", file=sys.stderr)
    return camera


def check_images(paths: Sequence[Path], output: Path) -> None:
    """Checked before the model is loaded, which can take minutes."""
    folders: dict[Path, Path] = {}
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such image file")
        folder = result_folder(output, path)
        if folder in folders:
            raise ValueError(f"expected images of different names, got {folders[folder]} and {path}")
        folders[folder] = path
