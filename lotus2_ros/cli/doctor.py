"""``lotus2 doctor``: what is wrong with this machine and a running graph, or with a recording, and what mends it."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from lotus2_ros.config import Config, add_option, walk
from lotus2_ros.config.names import DEPTH_INPUT, IMAGE_INPUT, INFO_INPUT, POINTS_INPUT, option_of
from lotus2_ros.ros.doctor.diagnosis import LISTEN, diagnose
from lotus2_ros.ros.doctor.findings import Level

# Option -> input of the node.
INPUTS = {option_of(name): name for name in (IMAGE_INPUT, INFO_INPUT, DEPTH_INPUT, POINTS_INPUT)}
# Option -> parameter of the node, whose default and help it takes.
PARAMETERS = {
    "--model": "model.path",
    "--device": "model.device",
    "--image-transport": "input.image_transport",
    "--reference-transport": "input.reference_transport",
    "--rectified": "input.rectified",
    "--fov": "input.fov",
    "--sync-slop": "input.sync_slop",
    "--points-transform": "scale.points_transform",
    "--camera-height": "scale.camera_height",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bag", type=Path, metavar="FILE", help="examine a recording in place of the running graph")
    parser.add_argument(
        "--seconds",
        type=float,
        help=f"how long to listen (default: {LISTEN:g}), or how much of the recording to read (default: all)",
    )
    for option, name in INPUTS.items():
        parser.add_argument(option, dest=name, metavar="TOPIC", help=f"topic of the node's input {name}")
    fields = dict(walk())
    for option, name in PARAMETERS.items():
        add_option(parser, option, name, fields[name])


def run(args: argparse.Namespace) -> int:
    """Exit status 1 if something is wrong."""
    if args.seconds is not None and not 0 < args.seconds < float("inf"):
        raise ValueError(f"--seconds: expected a positive number, got {args.seconds:g}")
    if args.bag is not None and not args.bag.exists():
        raise FileNotFoundError(f"{args.bag}: no such file or folder")
    given = vars(args)
    config = Config().updated({name: given[name] for name in PARAMETERS.values()})
    names = {name: given[name] for name in INPUTS.values() if given[name] is not None}
    counts: Counter[Level] = Counter()
    for finding in diagnose(config, names, args.bag, args.seconds):
        print(finding, flush=True)
        counts[finding.level] += 1
    print(f"{counts[Level.WRONG]} wrong, {counts[Level.HINT]} hints, {counts[Level.OK]} ok")
    return 1 if counts[Level.WRONG] else 0
