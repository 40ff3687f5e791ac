"""The arguments of commands that read a recording, and the recording, configuration and workers that they ask for."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager
from pathlib import Path

import yaml

from lotus2_ros.bags import Recording, open_recording
from lotus2_ros.config import Config, add_option, walk
from lotus2_ros.inference.work import Workers
from lotus2_ros.ros.offline import warn_above_bar

ENGINE = "model.engine"


def add_camera_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments about the camera, and for parameters of the node."""
    parser.add_argument(
        "--camera-info-topic", metavar="TOPIC", help="calibration of the images (default: by the image topic's name)"
    )
    parser.add_argument("--fov", type=float, help="horizontal field of view in degrees, for an uncalibrated input")
    parser.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="NAME:=VALUE",
        help="a parameter of the node; may be repeated",
    )


def add_recording_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments about how a recording is read, and which model runs over it where."""
    add_camera_arguments(parser)
    parser.add_argument(
        "--reference-topic",
        metavar="TOPIC",
        help="depth images or points that set the metric scale (default: reference/depth or reference/points)",
    )
    parser.add_argument(
        "--odometry-topic", metavar="TOPIC", help="nav_msgs/Odometry for the scale source odometry (default: odometry)"
    )
    parser.add_argument("--frames", type=int, help="process at most this many frames of each input")
    parser.add_argument(
        "--model", default="", help="bundle, or folder in the released layout (default: the bundled model)"
    )
    add_option(parser, "--engine", ENGINE, dict(walk())[ENGINE])
    parser.add_argument(
        "--workers",
        type=_workers,
        metavar="N|auto",
        help="run the model in N processes, one GPU each; auto: one for each GPU, or for each core if that is faster",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS|auto|local",
        help="run the model on the Ray cluster at ADDRESS, that of this machine (auto) or one of its own (local); "
        "--workers N uses N of its GPUs, or CPUs",
    )


def recording_of(args: argparse.Namespace, source: Path, topic: str | None, config: Config) -> Recording:
    return open_recording(
        [source],
        topic=topic,
        reference_topic=args.reference_topic,
        camera_info_topic=args.camera_info_topic,
        odometry_topic=args.odometry_topic,
        with_transforms=bool(config.scale.fixed_frame),
        rectified=config.input.rectified,
        fov=args.fov,
        limit=args.frames,
        say=warn_above_bar,
    )


def workers_of(args: argparse.Namespace, config: Config, frames: int | None) -> AbstractContextManager[Workers]:
    from lotus2_ros.inference.workers import open_workers  # takes seconds, so errors in the arguments come first

    return open_workers(config, count=args.workers, ray=args.ray, frames=frames)


def config_of(args: argparse.Namespace) -> Config:
    """Raises ValueError."""
    return Config().updated({"model.path": args.model, ENGINE: getattr(args, ENGINE), **parameters(args.parameter)})


def parameters(given: list[str]) -> dict[str, object]:
    """NAME:=VALUE, as ROS takes them. Raises ValueError."""
    found = {}
    for text in given:
        name, assigned, value = text.partition(":=")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            assigned = ""
        if not assigned:
            raise ValueError(f"expected -p NAME:=VALUE with a value in YAML, got {text!r}")
    if "input.fov" in found:
        raise ValueError(f"expected --fov for a recording, got -p input.fov:={found['input.fov']}")
    return found


def _workers(text: str) -> int:
    """A number; 0 stands for auto."""
    if text == "auto":
        return 0
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive number or auto, got {text!r}")
    return int(text)
