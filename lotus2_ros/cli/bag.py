"""``lotus2 bag IN OUT``: every image of a recording through the model, without a running ROS, into a new rosbag2."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lotus2_ros.bags import BagWriter, RecordedFrame, open_recording
from lotus2_ros.bags.frames import typestore
from lotus2_ros.bags.writer import write_frame
from lotus2_ros.config import Config
from lotus2_ros.inference.estimator import Estimator, load_estimator
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.ros.diagnostics import frame_report
from lotus2_ros.ros.messages import MessageError, camera_from_info, depth_to_tensor, image_to_tensor, stamp_seconds
from lotus2_ros.ros.publishers import messages_of
from lotus2_ros.ros.serialization import deserialize, serialize
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.reference import Reference

PREFIXES = {"core": "/perception/", "sharpener": "/perception/sharp/"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, help="bag, folder of images, video or image")
    parser.add_argument("output", type=Path, help="new rosbag2: a folder, or one file if the name ends in .mcap")
    parser.add_argument("--topic", help="image topic of the bag, where it has several")
    parser.add_argument("--reference-topic", help="depth topic of the bag that gives the scale (/reference/depth)")
    parser.add_argument(
        "--fov", type=float, help="horizontal field of view in degrees, of an input without calibration"
    )
    parser.add_argument("--frames", type=int, help="the first so many frames only")
    parser.add_argument("--model", default="", help="bundle, or folder in the released layout; none: the bundled model")
    parser.add_argument("--sharpen-every", type=int, default=0, metavar="N", help="sharpen each Nth frame; 0: none (0)")


def run(args: argparse.Namespace) -> int:
    """Raises ValueError or FileNotFoundError on an input or a model that cannot be used."""
    recording = open_recording(
        [args.input], topic=args.topic, reference_topic=args.reference_topic, fov=args.fov, limit=args.frames
    )
    print(f"input: {recording.name}\ncamera: {recording.camera}", flush=True)
    config = Config().updated({"model.path": args.model})
    estimator, scale_filter = load_estimator(config), ScaleFilter()
    with BagWriter(args.output) as bag:
        for index, frame in enumerate(tqdm(recording.frames(), unit="frame")):
            write_frame(bag, frame)
            is_sharpened = args.sharpen_every > 0 and index % args.sharpen_every == 0
            try:
                for geometry in estimate(estimator, scale_filter, frame, is_sharpened):
                    write_geometry(bag, estimator, geometry, frame)
            except MessageError as error:
                tqdm.write(f"frame {index} has no geometry: {error}")
    print(f"{args.output}: {bag.count} messages")
    return 0


def estimate(
    estimator: Estimator, scale_filter: ScaleFilter, frame: RecordedFrame, is_sharpened: bool
) -> Iterator[Geometry]:
    """The frame's geometry from the core predictor and, if wanted, from the sharpener after it."""
    image = image_to_tensor(ros_message(frame.image))
    info = ros_message(frame.camera_info)
    camera = camera_from_info(info, image.shape[0], image.shape[1], estimator.device, rectified=False)
    reference = None
    if frame.reference is not None:
        measured = ros_message(frame.reference)
        reference = Reference(depth_to_tensor(measured), stamp_seconds(measured.header))
    coarse = estimator.predict(image, camera, reference, scale_filter=scale_filter, stamp=frame.stamp_ns * 1e-9)
    yield coarse
    if is_sharpened:
        yield estimator.sharpen(coarse).result()


def write_geometry(bag: BagWriter, estimator: Estimator, geometry: Geometry, frame: RecordedFrame) -> None:
    """The node's messages on the node's topics, at the image's stamp."""
    header, info = ros_message(frame.image).header, ros_message(frame.camera_info)
    prefix = PREFIXES[geometry.stage]
    outputs = messages_of(geometry, info, header, estimator.config.cloud, wanted=lambda topic: True)
    for topic, message in outputs:
        bag.write_raw(prefix + topic, *serialize(message), frame.stamp_ns)
    report = frame_report(geometry, estimator, geometry.latency, header)
    bag.write_raw("/perception/report", *serialize(report), frame.stamp_ns)


def ros_message(item: Any) -> Any:
    """rosbags' message as the message of the ROS 2 client library."""
    return deserialize(bytes(typestore().serialize_cdr(item, item.__msgtype__)), item.__msgtype__)
