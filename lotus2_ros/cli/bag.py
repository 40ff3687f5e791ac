"""``lotus2 bag IN OUT``: run the model over a recording and write the results to a new rosbag2."""

from __future__ import annotations

import argparse
from pathlib import Path

from lotus2_ros.bags import ResumableBag, open_recording
from lotus2_ros.config import Config, add_option, walk
from lotus2_ros.inference.estimator import load_estimator
from lotus2_ros.ros.offline import process_recording, warn_above_bar

ENGINE = "model.engine"
# The options that the frames of the output depend on.
PLANNED = ("topic", "reference_topic", "camera_info_topic", "fov", "model", "sharpen_every")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, help="bag, folder of images, video or image")
    parser.add_argument("output", type=Path, help="new rosbag2: a folder, or one file if the name ends in .mcap")
    parser.add_argument("--topic", help="image topic of the bag, if it has several")
    parser.add_argument(
        "--reference-topic", help="depth topic of the bag that sets the metric scale (/reference/depth)"
    )
    parser.add_argument(
        "--camera-info-topic", metavar="TOPIC", help="calibration of the images (default: by the image topic's name)"
    )
    parser.add_argument("--fov", type=float, help="horizontal field of view in degrees, for an uncalibrated input")
    parser.add_argument("--frames", type=int, help="process at most this many frames")
    parser.add_argument(
        "--model", default="", help="bundle, or folder in the released layout (default: the bundled model)"
    )
    add_option(parser, "--engine", ENGINE, dict(walk())[ENGINE])
    parser.add_argument(
        "--sharpen-every", type=int, default=0, metavar="N", help="sharpen every Nth frame; 0: none (default: 0)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a bag that this command wrote earlier")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run of the same command")


def run(args: argparse.Namespace) -> int:
    recording = open_recording(
        [args.input],
        topic=args.topic,
        reference_topic=args.reference_topic,
        camera_info_topic=args.camera_info_topic,
        fov=args.fov,
        limit=args.frames,
        say=warn_above_bar,
    )
    plan = {"input": str(args.input.resolve())} | {name: getattr(args, name) for name in PLANNED}
    bag = ResumableBag(args.output, "bag", plan, [args.input], resume=args.resume, overwrite=args.overwrite)
    print(f"input: {recording.name}\ncamera: {recording.camera}", flush=True)
    estimator = load_estimator(Config().updated({"model.path": args.model, ENGINE: getattr(args, ENGINE)}))
    with bag:
        process_recording(estimator, recording, bag, sharpen_every=args.sharpen_every)
    print(f"{args.output}: {bag.count} messages")
    return 0
