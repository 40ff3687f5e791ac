"""``lotus2 demo``: play a recording through the running node and show the results."""

from __future__ import annotations

import argparse
from pathlib import Path

from lotus2_ros.cli.recording import add_camera_arguments
from lotus2_ros.demo.demo import run_demo
from lotus2_ros.demo.scene import SCENE_RATE

LIMIT = 300


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input",
        nargs="+",
        type=Path,
        default=[],
        metavar="PATH",
        help="image files, a folder, a video, a rosbag2 or a ROS 1 bag (default: a rendered walk through a room)",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("out/demo"), help="folder for the results (default: %(default)s)"
    )
    parser.add_argument("--topic", help="image topic of the bag, if it has several")
    parser.add_argument(
        "--reference-topic",
        metavar="TOPIC",
        help="depth topic of the bag that sets the metric scale (default: /reference/depth)",
    )
    parser.add_argument("--frames", type=int, default=LIMIT, help="use at most this many frames (default: %(default)s)")
    parser.add_argument("--rate", type=float, help=f"playback speed (default: 1, for the room {SCENE_RATE})")
    parser.add_argument("--model", help="bundle, or folder in the released layout (default: the bundled model)")
    add_camera_arguments(parser)


def run(args: argparse.Namespace) -> int:
    run_demo(
        args.input,
        args.output,
        frames=args.frames,
        rate=args.rate,
        topic=args.topic,
        reference_topic=args.reference_topic,
        camera_info_topic=args.camera_info_topic,
        fov=args.fov,
        model=args.model,
        parameters=args.parameter,
    )
    return 0
