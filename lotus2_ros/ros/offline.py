"""A recording through the model without a running ROS: the node's messages on the node's topics, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

from lotus2_ros.bags import BagWriter, RecordedFrame, Recording
from lotus2_ros.bags.frames import typestore
from lotus2_ros.bags.writer import write_frame
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.ros.diagnostics import frame_report
from lotus2_ros.ros.messages import MessageError, camera_from_info, depth_to_tensor, image_to_tensor, stamp_seconds
from lotus2_ros.ros.publishers import messages_of
from lotus2_ros.ros.serialization import deserialize, serialize
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.reference import Reference

PREFIXES = {"core": "/perception/", "sharpener": "/perception/sharp/"}


def process_recording(
    estimator: Estimator,
    recording: Recording,
    bag: BagWriter,
    *,
    sharpen_every: int = 0,
    warn: Callable[[str], None] = tqdm.write,
) -> None:
    """Write every frame of a recording to a bag, with all that the node would publish for it.

    Every ``sharpen_every``-th frame is sharpened too; 0: none. A frame that cannot be used is kept without results, and
    ``warn`` is told why. Raises ValueError if frames are to be sharpened by a model without a sharpener.
    """
    model = estimator.model
    if sharpen_every and not any(map(model.has_sharpener, model.tasks)):
        raise ValueError(f"{model.name} has no detail sharpener; expected no --sharpen-every")
    scale_filter = ScaleFilter()
    for index, frame in enumerate(tqdm(recording.frames(), unit="frame")):
        write_frame(bag, frame)
        is_sharpened = sharpen_every > 0 and index % sharpen_every == 0
        try:
            for geometry in estimate(estimator, scale_filter, frame, is_sharpened):
                write_geometry(bag, estimator, geometry, frame)
        except MessageError as error:
            warn(f"frame {index} has no geometry: {error}")


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
