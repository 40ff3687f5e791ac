"""``lotus2 demo``: a camera bag through the running node, and what came out as pictures, cloud, bag and table."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from lotus2_ros import __version__
from lotus2_ros.bags import open_recording, read_messages, write_frames
from lotus2_ros.bags.writer import COMPRESSED_TOPIC
from lotus2_ros.demo.results import read_results, save_cloud, save_picture
from lotus2_ros.demo.scene import SCENE_FRAMES, SCENE_RATE, write_scene_bag
from lotus2_ros.demo.session import SessionError, record_node
from lotus2_ros.demo.table import table
from lotus2_ros.model.load import BUNDLED, FORMATS
from lotus2_ros.model.manifest import MANIFEST, read_manifest

LIMIT = 300


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="image files, a folder, a video, a rosbag2 or a ROS 1 bag; without it a rendered walk through a room",
    )
    parser.add_argument("--output", type=Path, default=Path("out/demo"), help="folder of the results (out/demo)")
    parser.add_argument("--topic", help="image topic of the bag, where it has several")
    parser.add_argument("--reference-topic", help="depth topic of the bag that gives the scale (/reference/depth)")
    parser.add_argument(
        "--fov", type=float, help="horizontal field of view in degrees, of an input without calibration"
    )
    parser.add_argument("--frames", type=int, default=LIMIT, help=f"use the first so many frames only ({LIMIT})")
    parser.add_argument(
        "--rate", type=float, help=f"speed of playing (1, that of the recording; the room {SCENE_RATE})"
    )
    parser.add_argument("--model", help="bundle, or folder in the released layout; without it the bundled model")
    parser.add_argument(
        "-p", "--parameter", action="append", default=[], metavar="NAME:=VALUE", help="a parameter of the node"
    )


def run(args: argparse.Namespace) -> int:
    """1 when the node, the player or the recorder fails. Raises ValueError or FileNotFoundError on bad input."""
    rate = args.rate if args.rate is not None else 1.0 if args.input else SCENE_RATE
    if rate <= 0 or args.frames <= 0:
        raise ValueError(f"expected a positive rate and number of frames, got {rate:g} and {args.frames}")
    start = time.monotonic()
    args.output.mkdir(parents=True, exist_ok=True)
    source, frames = write_source(args)
    target = args.output / "output.mcap"
    parameters = list(args.parameter)
    if args.model:
        parameters.append(f"model.path:={args.model}")
    else:  # the bundled model sharpens when it is asked to, and the demo shows all there is
        steps = read_manifest(BUNDLED / MANIFEST, FORMATS)["sharpener_steps"]
        parameters.insert(0, f"sharp.steps:={steps}")
    if next(read_messages(source, [COMPRESSED_TOPIC]), None) is not None:
        parameters.append("input.image_transport:=compressed")
    print(f"playing at {rate:g} x the speed of the recording")
    try:
        record_node(source, target, frames=frames, rate=rate, parameters=parameters, logs=args.output)
        results = read_results(source, target)
    except SessionError as error:
        print(f"lotus2 demo: {error}", file=sys.stderr)
        return 1
    save_picture(args.output / "preview.png", target, results)
    save_cloud(args.output / "points.ply", target, results)
    print(table(results, frames))
    print(f"\n{args.output}: preview.png, points.ply, output.mcap (Foxglove, ros2 bag play), {source.name}, logs")
    print(f"done in {time.monotonic() - start:.0f} s")
    return 0


def write_source(args: argparse.Namespace) -> tuple[Path, int]:
    """The input as the one bag that is played, and the number of its images. The room is rendered once."""
    if not args.input:
        frames = min(args.frames, SCENE_FRAMES)
        path = args.output / f"room-{__version__}-{frames}.mcap"
        if not path.is_file():
            print(f"rendering {frames} frames of a room (kept as {path}) ...", flush=True)
            write_scene_bag(path, frames)
        return path, frames
    path = args.output / "input.mcap"
    recording = open_recording(
        args.input, topic=args.topic, reference_topic=args.reference_topic, fov=args.fov, limit=args.frames
    )
    frames = write_frames(path, recording.frames())
    limited = f" (the first {frames}; --frames says how many)" if frames == args.frames else ""
    print(f"input: {recording.name}: {frames} frames{limited}\ncamera: {recording.camera}", flush=True)
    return path, frames
