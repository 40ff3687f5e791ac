"""The command ``lotus2``: each subcommand in a module of its own, imported only when it runs."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import NamedTuple

from lotus2_ros.config.errors import RunError
from lotus2_ros.model.progress import show_progress
from lotus2_ros.surroundings import check_surroundings


class Command(NamedTuple):
    """A subcommand: a module with ``add_arguments(parser)`` and ``run(args) -> int``, and one line of help."""

    module: str
    help: str
    is_hidden: bool = False  # a developer's tool


COMMANDS = {
    "demo": Command("lotus2_ros.cli.demo", "play a recording through the node and show the results"),
    "infer": Command("lotus2_ros.cli.infer", "estimate disparity, normals and points of image files"),
    "prepare": Command("lotus2_ros.cli.prepare", "convert released weights to a bundle that the node runs"),
    "export": Command("lotus2_ros.cli.export", "write a model as ONNX graphs, for ONNX Runtime and TensorRT"),
    "bag": Command("lotus2_ros.cli.bag", "run the model over a recording and write the results to a new bag"),
    "map": Command("lotus2_ros.cli.map", "make a mesh from a recording with meters and poses of the camera"),
    "view": Command("lotus2_ros.cli.view", "look at the results of a recording or of the running node, in Rerun"),
    "node": Command("lotus2_ros.cli.node", "run the ROS 2 node; ROS arguments follow --ros-args"),
    "doctor": Command(
        "lotus2_ros.cli.doctor", "check this machine, a running graph or a recording, and say how to mend it"
    ),
    "train": Command("lotus2_ros.cli.train", "train a model: the small bundled one, or the real one on FLUX.1-dev"),
    "evaluate": Command("lotus2_ros.cli.evaluate", "measure a model against known depth and normals"),
    "params": Command("lotus2_ros.cli.params", "generate config/perception.yaml and the tables of the docs", True),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 on success, 1 on a failed run or an unexpected error, 2 on bad input, 130 when interrupted.

    An error is one line on stderr; with ``--debug`` its traceback comes first.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    name = _command_parser().parse_args(argv[:1]).command
    debug = "--debug" in argv  # errors come before the arguments are parsed, too
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # what it cannot decode is said by whoever asked for it
    try:
        check_surroundings()
        show_progress()
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a name may hold what the terminal cannot show
        status = _run(name, argv[1:])
        print(end="", flush=True)
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains as it ends
        return 1
    except Exception as error:  # every error ends as one line
        if debug:
            traceback.print_exc()
        if isinstance(error, RunError):
            print(f"lotus2 {name}: {error}", file=sys.stderr)
            return 1
        is_bad_input = isinstance(error, ValueError | OSError)
        message = " ".join(str(error).split())
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            message += "; make room, or choose an output on another disk"
        if not is_bad_input:
            message = f"{type(error).__name__}: {message}" if message else type(error).__name__
            if not debug:
                message += "; run again with --debug to see the traceback"
        print(f"lotus2 {name}: {message}", file=sys.stderr)
        return 2 if is_bad_input else 1


def _run(name: str, argv: Sequence[str]) -> int:
    command = COMMANDS[name]
    module = import_module(command.module)
    parser = argparse.ArgumentParser(prog=f"lotus2 {name}", description=f"{command.help[0].upper()}{command.help[1:]}.")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    module.add_arguments(parser)
    return module.run(parser.parse_args(argv))


def _command_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lotus2", description="Dense 3D geometry from one ordinary camera.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        if command.is_hidden:
            subparsers.add_parser(name, add_help=False)
        else:
            subparsers.add_parser(name, help=command.help, add_help=False)
    return parser


if __name__ == "__main__":
    sys.exit(main())
