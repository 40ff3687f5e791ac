"""`lotus2 infer`: images in, arrays, a preview and a cloud out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lotus2_ros.bags.files import read_rgb
from lotus2_ros.config import Config
from lotus2_ros.config.options import add_options
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.estimator import Estimator, load_estimator
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.view.ply import save_ply
from lotus2_ros.view.preview import Row, save_preview

# Option -> parameter, whose default and help it takes.
OPTIONS = {
    "--model": "model.path",
    "--tasks": "model.tasks",
    "--posterior": "model.posterior",
    "--seed": "model.seed",
    "--dtype": "model.dtype",
    "--conditioning": "model.timestep_dtype",
    "--process-resolution": "model.process_resolution",
    "--device": "model.device",
}


@dataclass(frozen=True)
class Intrinsics:
    """Of a pinhole camera, in pixels, integer pixel centres."""

    fx: float
    fy: float
    cx: float
    cy: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="Results go to DIR/<name of the image>/"
    )
    parser.add_argument(
        "--sharpen-steps", type=int, default=0, metavar="N", help="Euler steps of the detail sharpener; 0: none (0)"
    )
    parser.add_argument(
        "--intrinsics",
        type=parse_intrinsics,
        metavar="FX,FY,CX,CY",
        help="Of the images, in pixels, integer pixel centres; with them a depth map and a cloud are written too",
    )
    add_options(parser, OPTIONS)


def parse_intrinsics(text: str) -> Intrinsics:
    try:
        return Intrinsics(*(float(value) for value in text.split(",")))
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"expected fx,fy,cx,cy, four numbers in pixels, got {text!r}") from None


def run(args: argparse.Namespace) -> int:
    """Raises ValueError or FileNotFoundError, in one line, on input that cannot be used."""
    check_images(args.images)
    values = {name: getattr(args, name) for name in OPTIONS.values()}
    values["model.compile"] = False  # it takes longer than a few images
    if args.sharpen_steps:
        values["sharp.steps"] = args.sharpen_steps
    estimator = load_estimator(Config().updated(values))
    if args.sharpen_steps and not any(map(estimator.model.has_sharpener, estimator.model.tasks)):
        raise ValueError(f"{estimator.model.name} has no detail sharpener; expected --sharpen-steps 0")
    for image in args.images:
        stages = estimate(estimator, image, args.intrinsics, sharpen=args.sharpen_steps > 0)
        folder = args.output / image.stem
        write(folder, stages)
        milliseconds = sum(stage_s for geometry in stages for stage_s in geometry.latency.values()) * 1000
        print(f"{image}: {milliseconds:.0f} ms -> {folder}", flush=True)
    return 0


def check_images(images: Sequence[Path]) -> None:
    """Before the model is loaded, which may take minutes."""
    folders: dict[str, Path] = {}
    for image in images:
        if not image.is_file():
            raise FileNotFoundError(f"{image}: no such image file")
        if image.stem in folders:
            raise ValueError(f"{image} and {folders[image.stem]} have the same name and would overwrite each other")
        folders[image.stem] = image


def estimate(estimator: Estimator, path: Path, intrinsics: Intrinsics | None, *, sharpen: bool) -> list[Geometry]:
    """The geometry of an image file from the core predictor and, if wanted, from the sharpener after it."""
    image = torch.from_numpy(read_rgb(path))
    camera = None
    if intrinsics is not None:
        camera = Camera.from_intrinsics(
            image.shape[1], image.shape[0], intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy
        )
    try:
        stages = [estimator.predict(image, camera)]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if sharpen:
        stages.append(estimator.sharpen(stages[0]).result())
    return stages


def write(folder: Path, stages: Sequence[Geometry]) -> None:
    """The arrays of the last stage, and a preview of all. Depth and cloud are relative: up to one unknown factor."""
    result = stages[-1]
    folder.mkdir(parents=True, exist_ok=True)
    if result.disparity is not None:
        np.save(folder / "disparity.npy", result.disparity.cpu().numpy())
    if result.normals is not None:
        np.save(folder / "normals.npy", result.normals.cpu().numpy())
    if result.camera is not None and result.depth is not None and result.points is not None:
        np.save(folder / "depth.npy", result.depth.cpu().numpy())
        save_ply(folder / "points.ply", result.points, result.image, result.normals)
    save_preview(
        folder / "preview.png",
        [
            Row(g.stage, g.image, g.disparity, g.depth if g.camera else None, g.normals, g.camera, g.scale.metric)
            for g in stages
        ],
    )
