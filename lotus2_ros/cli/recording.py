"""The options of the commands that read a recording."""

from __future__ import annotations

import argparse


def add_recording_options(parser: argparse.ArgumentParser) -> None:
    """The topics of a bag, and the field of view: keywords of :func:`lotus2_ros.bags.open_recording`."""
    parser.add_argument("--topic", help="image topic of the bag, if it has several")
    parser.add_argument(
        "--reference-topic", help="depth topic of the bag that sets the metric scale (/reference/depth)"
    )
    parser.add_argument(
        "--camera-info-topic", metavar="TOPIC", help="calibration of the images (default: by the image topic's name)"
    )
    parser.add_argument("--fov", type=float, help="horizontal field of view in degrees, for an uncalibrated input")
