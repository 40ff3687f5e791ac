"""``lotus2 node``: the ROS 2 node, as ``ros2 run lotus2_ros perception`` starts it."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ros-args",
        dest="ros_args",
        nargs=argparse.REMAINDER,
        default=[],
        help="ROS arguments, such as -p sharp.period:=2.0 or -r image:=/camera/image_raw",
    )


def run(args: argparse.Namespace) -> int:
    from lotus2_ros.ros.node import main

    return main(["--ros-args", *args.ros_args])
