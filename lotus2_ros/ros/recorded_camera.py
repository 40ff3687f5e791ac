"""One camera of a recording: its references and scales, frame by frame in order, as in a running node."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from std_msgs.msg import Header
from torch import Tensor

from lotus2_ros.bags import RecordedFrame, Recording
from lotus2_ros.bags.frames import Say, typestore
from lotus2_ros.bags.topics import image_size
from lotus2_ros.bags.transforms import TransformBuffer, TransformError
from lotus2_ros.config import Config
from lotus2_ros.config.live import LiveConfig
from lotus2_ros.geometry.calibration import Calibration
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.alignment import align, align_sharp
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.inference.work import Prediction, Request, Workers, in_order
from lotus2_ros.ros.messages import (
    MessageError,
    camera_from_info,
    image_to_tensor,
    only_message_errors,
    stamp_nanoseconds,
)
from lotus2_ros.ros.odometry import ODOMETRY, CameraMotion
from lotus2_ros.ros.references import REFERENCE_TOPICS, References
from lotus2_ros.ros.serialized import deserialize
from lotus2_ros.ros.transforms import REASON, Transforms
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.metric_model import METRIC_MODEL, metric_reference
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.sources import metric_sources


@dataclass(frozen=True)
class PredictedFrame:
    """A frame of a recording with what the model predicts for it.

    ``image``: (H, W, 3) uint8 RGB; None if it cannot be decoded. ``prediction`` is done; its result raises ValueError,
    RuntimeError or MemoryError if there is none.
    """

    index: int
    frame: RecordedFrame
    image: Tensor | None
    prediction: Future[Prediction]


class RecordedCamera:
    """Takes the frames of a recording one after the other.

    The workers predict; matching references and keeping the scale steady is done here, because it depends on earlier
    frames.
    """

    def __init__(self, config: Config, warn: Say) -> None:
        self.scale_filter = ScaleFilter()
        self.followed: list[int] = []  # frames, by number, whose motion was followed
        self._config = config
        self._transforms = RecordedTransforms()
        rejections, fixed = Rejections(warn), LiveConfig(config)
        self._references = References(rejections, fixed, self._transforms)
        self._motion = CameraMotion(rejections, fixed, self._transforms)
        self._camera: tuple[object, Camera] | None = None
        self._metric_stamp = -math.inf

    def camera(self, frame: RecordedFrame) -> Camera:
        """Kept while the calibration stays the same: its rays take time to compute. Raises MessageError, InputError."""
        info = ros_message(frame.camera_info)
        width, height = image_size(frame.image)
        key = width, height, Calibration.of(info)
        if self._camera is None or self._camera[0] != key:
            self._camera = key, camera_from_info(info, height, width, "cpu", rectified=False)
        return self._camera[1]

    def metric_camera(self, frame: RecordedFrame) -> Camera | None:
        """The camera of a frame that ``scale.metric_model`` is to see: one every ``scale.metric_period`` seconds.

        Call it for every frame, in order. Frames with a measurement of a better source need no model.
        """
        scale, stamp = self._config.scale, frame.stamp_ns * 1e-9
        sources = [source.name for source in metric_sources(scale)]
        is_measured = frame.reference is not None or bool(frame.points)
        if METRIC_MODEL not in sources or (is_measured and any(name in REFERENCE_TOPICS for name in sources)):
            return None
        if 0 <= stamp - self._metric_stamp < scale.metric_period:
            return None
        self._metric_stamp = stamp
        with suppress(ValueError):  # it is said when the frame is processed
            return self.camera(frame)
        return None

    def reference(self, predicted: PredictedFrame) -> Reference | None:
        """The reference for a frame, measured or by the camera's motion. Call it for every frame, in order.

        Raises MessageError.
        """
        frame, image = predicted.frame, predicted.image
        measured = self._measured(frame, self.scale_filter.refused)
        if image is None or not self.scale_filter.wants_other(measured):
            return measured
        if not self.scale_filter.wants(ODOMETRY, frame.stamp_ns * 1e-9, self._config.scale):
            return measured
        self.followed.append(predicted.index)
        return self._moved(frame, image) or measured

    def _replay(self, index: int, frame: RecordedFrame) -> None:
        """A frame that was processed before an interruption, and is in ``followed`` if it was then."""
        with suppress(ValueError, RuntimeError):  # it was said when the frame was processed
            self._measured(frame)
            if index in self.followed:
                self._moved(frame, image_to_tensor(ros_message(frame.image), self._config.input))

    def _measured(self, frame: RecordedFrame, refused: str = "") -> Reference | None:
        """Measured depth or points, see :meth:`References.for_frame`."""
        for message, is_static in frame.transforms:
            self._transforms.buffer.add(message, is_static=is_static)
        for odometry in frame.odometry:
            self._motion.odometry(odometry)
        if frame.reference is not None:
            self._references.depth(ros_message(frame.reference))
        for points in frame.points:
            self._references.points(ros_message(points))
        return self._references.for_frame(header_of(frame), self.camera(frame), self._config.scale, refused)

    def _moved(self, frame: RecordedFrame, image: Tensor) -> Reference | None:
        """Points by the camera's motion."""
        return self._motion.for_frame(image, header_of(frame), self.camera(frame), self._config.scale)

    def predicted_frames(
        self, workers: Workers, recording: Recording, *, done: int = 0, sharpen_every: int = 0
    ) -> Iterator[PredictedFrame]:
        """Every frame of a recording, in order.

        Args:
            workers: predict the frames.
            recording: of this camera.
            done: frames of an interrupted run: of these only what was measured is read.
            sharpen_every: one frame of this many is sharpened too; 0: none.
        """
        frames: dict[int, RecordedFrame] = {}  # in progress

        def requests() -> Iterator[Request]:
            for index, frame in enumerate(recording.frames()):
                metric_camera = self.metric_camera(frame)
                if index < done:
                    self._replay(index, frame)
                    continue
                frames[index] = frame
                is_sharpened = sharpen_every > 0 and index % sharpen_every == 0
                yield self._request(index, frame, is_sharpened, metric_camera)

        for completed in in_order(workers, requests()):
            index, pixels = completed.request.index, completed.request.pixels
            image = None if pixels is None else torch.from_numpy(pixels)
            yield PredictedFrame(index, frames.pop(index), image, completed.future)

    def _request(self, index: int, frame: RecordedFrame, is_sharpened: bool, metric_camera: Camera | None) -> Request:
        try:
            with only_message_errors():
                image = image_to_tensor(ros_message(frame.image), self._config.input)
        except MessageError as error:
            return Request(index, None, error=error)
        return Request(index, image.numpy(), is_sharpened, metric_camera=metric_camera)

    def pose(self, frame: RecordedFrame) -> Tensor:
        """From the camera's optical frame to the fixed frame of odometry or /tf, (4, 4). Raises MessageError."""
        found = self._motion.pose(header_of(frame), self._config.scale)
        if found is None:
            given = "nav_msgs/Odometry (--odometry-topic), or /tf and -p scale.fixed_frame:=FRAME"
            raise MessageError(REASON, f"expected the camera's pose at the time of the image by {given}, got none")
        return found

    def geometries(
        self, predicted: PredictedFrame, reference: Reference | None
    ) -> Iterator[tuple[Geometry, dict[str, float]]]:
        """The geometry of the core predictor and, if there is one, of the sharpener; with seconds by stage.

        Raises the error of the prediction if it failed.
        """
        prediction, stamp = predicted.prediction.result(), predicted.frame.stamp_ns * 1e-9
        assert predicted.image is not None  # there is a prediction
        if prediction.metric_depth is not None and self.scale_filter.wants_other(reference):
            reference = metric_reference(torch.from_numpy(prediction.metric_depth), stamp)
        coarse = prediction.geometry(predicted.image, self.camera(predicted.frame))
        coarse = align(coarse, reference, self.scale_filter, stamp, self._config)
        yield coarse, {**prediction.latency, **coarse.latency}
        if prediction.sharp is not None:
            yield align_sharp(coarse, prediction.sharp.found(), sky=self._config.depth.sky), prediction.sharp.latency


class RecordedTransforms(Transforms):
    """Looks up transforms in what a recording has of /tf and /tf_static."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = TransformBuffer()

    def listen(self) -> None: ...

    def lookup(self, header: Header, target: str, parameter: str) -> Tensor:
        """Nothing comes later that could be waited for: what is not there raises MessageError."""
        try:
            return self.buffer.lookup(target, header.frame_id, stamp_nanoseconds(header))
        except TransformError as error:
            raise MessageError(REASON, f"{error}; {parameter} can say it") from None


class Rejections:
    """A line for each reference that is rejected, the first time for its reason."""

    def __init__(self, warn: Say) -> None:
        self._warn = warn
        self._known: set[str] = set()

    def reject(self, reason: str, text: str, frame: bool = True) -> None:
        if reason not in self._known:
            self._known.add(reason)
            self._warn(f"a reference is not used: {text} (further ones for {reason} are not named)")


def header_of(frame: RecordedFrame) -> Header:
    """With the stamp and the frame_id of the image."""
    return ros_message(frame.camera_info).header


def ros_message(item: Any) -> Any:
    """rosbags' message as the message of the ROS 2 client library."""
    return deserialize(bytes(typestore().serialize_cdr(item, item.__msgtype__)), item.__msgtype__)
