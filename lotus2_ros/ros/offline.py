"""A recording through the model without a running ROS: the node's messages on the node's topics, frame by frame."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from tqdm import tqdm

from lotus2_ros.bags import InputError, RecordedFrame, Recording, ResumableBag
from lotus2_ros.bags.frames import Say, typestore
from lotus2_ros.bags.writer import BagWriter, write_frame
from lotus2_ros.config.errors import RunError
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.ros.messages import MessageError, camera_from_info, depth_to_tensor, image_to_tensor, stamp_seconds
from lotus2_ros.ros.publishers import messages_of
from lotus2_ros.ros.report import frame_report
from lotus2_ros.ros.serialized import deserialize, serialize
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.reference import Reference

PREFIXES = {"core": "/perception/", "sharpener": "/perception/sharp/"}


class NoGeometryError(RunError):
    """A recording of which not one frame could be used; says why."""


def warn_above_bar(line: str) -> None:
    """On stderr, without breaking the progress bar."""
    tqdm.write(line, file=sys.stderr)


def process_recording(
    estimator: Estimator, recording: Recording, bag: ResumableBag, *, sharpen_every: int = 0, warn: Say = warn_above_bar
) -> None:
    """Write every frame of a recording to a bag, with all that the node would publish for it.

    Every ``sharpen_every``-th frame is sharpened too; 0: none. A frame that cannot be used is kept without results, and
    ``warn`` is told why. Frames that the bag has from an interrupted run are left out. Raises NoGeometryError, and
    ValueError if frames are to be sharpened by a model without a sharpener.
    """
    model = estimator.model
    if sharpen_every and not any(map(model.has_sharpener, model.tasks)):
        raise ValueError(f"{model.name} has no detail sharpener; expected no --sharpen-every")
    scale_filter = ScaleFilter()
    failures: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    index = bag.frames
    try:
        frames = islice(recording.frames(), bag.frames, None)
        for index, frame in enumerate(tqdm(frames, unit=" frames", initial=bag.frames), bag.frames):
            write_frame(bag, frame)
            is_sharpened = sharpen_every > 0 and index % sharpen_every == 0
            try:
                for geometry in estimate(estimator, scale_filter, frame, is_sharpened, warn):
                    write_geometry(bag, estimator, geometry, frame)
                    sources[geometry.scale.source if geometry.scale.metric else "none"] += 1
                    notes[geometry.scale.note] += 1
            except (ValueError, RuntimeError, MemoryError) as error:
                failures[str(error)] += 1
                warn(f"frame {index} has no geometry: {error}")
            bag.flush()
    except InputError as error:  # nothing of the input can be decoded
        failures[str(error)] += 1
    if not sources and not bag.frames:
        bag.keep_partial = False
        reason = failures.most_common(1)[0][0] if failures else "the input has no image that can be decoded"
        raise NoGeometryError(f"{recording.name}: no frame gave geometry: {reason}")
    if recording.reference and sources and not sources["reference_depth"]:
        note = f": {notes.most_common(1)[0][0]}" if any(notes) else ""
        warn(f"{recording.reference}: the reference gave no metric scale in {sum(sources.values())} results{note}")


def estimate(
    estimator: Estimator, scale_filter: ScaleFilter, frame: RecordedFrame, is_sharpened: bool, warn: Say
) -> Iterator[Geometry]:
    """The frame's geometry from the core predictor and, if wanted, from the sharpener after it."""
    image = image_to_tensor(ros_message(frame.image))
    info = ros_message(frame.camera_info)
    camera = camera_from_info(info, image.shape[0], image.shape[1], estimator.device, rectified=False)
    reference = None
    if frame.reference is not None:
        measured = ros_message(frame.reference)
        try:
            reference = Reference(depth_to_tensor(measured), stamp_seconds(measured.header))
        except MessageError as error:
            warn(f"reference at {stamp_seconds(measured.header):.3f} s is not used: {error}")
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
        bag.write_raw(prefix + topic, *serialize(message), frame.time_ns)
    report = frame_report(geometry, estimator, geometry.latency, header)
    bag.write_raw("/perception/report", *serialize(report), frame.time_ns)


def ros_message(item: Any) -> Any:
    """rosbags' message as the message of the ROS 2 client library."""
    return deserialize(bytes(typestore().serialize_cdr(item, item.__msgtype__)), item.__msgtype__)
