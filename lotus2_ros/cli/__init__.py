"""The command ``lotus2``: each subcommand in a module of its own, imported only when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

# Name: (module with add_arguments(parser) and run(args) -> int, one line of help).
COMMANDS = {
    "demo": ("lotus2_ros.cli.demo", "play a camera bag, images or a video through the node and show what comes out"),
    "infer": ("lotus2_ros.cli.infer", "disparity, normals and points of image files"),
    "prepare": ("lotus2_ros.cli.prepare", "make a bundle that runs from FLUX.1-dev and the released files"),
    "bag": ("lotus2_ros.cli.bag", "run the model over a recorded bag and write another"),
    "node": ("lotus2_ros.cli.node", "run the ROS 2 node; ROS arguments follow --ros-args"),
    "params": ("lotus2_ros.cli.params", "write config/perception.yaml and the README's tables"),
    "train": ("lotus2_ros.cli.train", "train the small bundled model, or the real one on FLUX.1-dev"),
    "evaluate": ("lotus2_ros.cli.evaluate", "measure a model against exact or recorded depth"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 on success, 2 with one line on bad input, 130 when interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="lotus2", description="Dense 3D geometry from one ordinary camera.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, text) in COMMANDS.items():
        subparsers.add_parser(name, help=text, add_help=False)
    command = parser.parse_args(argv[:1]).command
    module = import_module(COMMANDS[command][0])
    parser = argparse.ArgumentParser(prog=f"lotus2 {command}", description=COMMANDS[command][1])
    module.add_arguments(parser)
    args = parser.parse_args(argv[1:])
    try:
        return module.run(args)
    except (ValueError, OSError) as error:
        print(f"lotus2 {command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
