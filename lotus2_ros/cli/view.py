"""``lotus2 view [BAG]``: results in the Rerun viewer, of a recording or live."""

from __future__ import annotations

import argparse
from pathlib import Path

from lotus2_ros.config.errors import RunError
from lotus2_ros.config.names import IMAGE_INPUT, NODE
from lotus2_ros.config.output import OutputError, check_apart


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recording", nargs="?", type=Path, help="bag that `lotus2 bag` or the demo wrote (default: the running node)"
    )
    parser.add_argument(
        "--save", type=Path, metavar="FILE.rrd", help="write a file for the viewer in place of opening it"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --save if it exists")
    parser.add_argument("--node", default=NODE, help="name of the node (default: %(default)s)")
    parser.add_argument(
        "--image", default=f"/{IMAGE_INPUT}", metavar="TOPIC", help="topic of its images (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, help="show a running node for this long (default: until Ctrl-C)")


def run(args: argparse.Namespace) -> int:
    from lotus2_ros.ros.viewing import view_node, view_recording
    from lotus2_ros.view.rerun_log import RerunLog

    if args.recording is not None and not args.recording.exists():
        raise FileNotFoundError(f"no such file or folder: {args.recording}")
    if args.save is not None:
        check_apart(args.save, [args.recording] if args.recording else [])
        if args.save.is_dir() or args.save.suffix != ".rrd" or not args.save.absolute().parent.is_dir():
            raise OutputError(f"{args.save}: expected a file whose name ends in .rrd, in a folder that exists")
        if args.save.exists() and not args.overwrite:
            raise OutputError(f"{args.save}: already exists; --overwrite replaces it")
    with RerunLog(args.save, name=str(args.recording or args.node)) as log:
        try:
            if args.recording is not None:
                count = view_recording(log, args.recording, args.node)
            else:
                count = view_node(log, args.node, args.image, args.image.endswith("/compressed"), args.seconds)
        except KeyboardInterrupt:
            count = None
        if count == 0:
            raise RunError(f"no results of a node {args.node!r} came; `lotus2 doctor` says why")
    if args.save is not None:
        shown = "" if count is None else f"{count} messages; "
        print(f"{args.save}: {shown}`rerun {args.save}` opens it")
    return 0
