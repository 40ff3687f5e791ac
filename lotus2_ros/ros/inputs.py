"""The node's inputs: subscriptions that are open only while needed, and the conversion of a frame for the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CompressedImage, Image
from torch import Tensor

from lotus2_ros.config import Config
from lotus2_ros.config.names import DEPTH_INPUT, IMAGE_INPUT, INFO_INPUT, ODOMETRY_INPUT, POINTS_INPUT
from lotus2_ros.geometry.calibration import Calibration
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.ros.camera_setup import CameraSetup
from lotus2_ros.ros.decoder import DEPTH, DecoderThread
from lotus2_ros.ros.messages import camera_from_info, image_to_tensor, only_message_errors, stamp_seconds
from lotus2_ros.ros.metric_depth import MetricDepth
from lotus2_ros.ros.odometry import ODOMETRY, CameraMotion
from lotus2_ros.ros.references import References
from lotus2_ros.ros.subscriptions import image_is_rectified, input_topic, subscribe, take_all
from lotus2_ros.ros.synchronizer import CameraFrame, Synchronizer
from lotus2_ros.ros.transforms import Transforms
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.reference import Reference


@dataclass(frozen=True)
class ModelInput:
    """An image (H, W, 3) uint8 RGB, its camera, and the measured depth to fit the scale to, if there is any."""

    image: Tensor
    camera: Camera
    reference: Reference | None


class Inputs:
    """Subscribes to one camera's topics, decodes compressed messages, and converts.

    ``deliver`` is called with each synchronized frame: in the executor thread, or in that of ``decoder`` if the frame
    went through it. The caller starts and stops ``decoder``. ``failed`` gets the exception that ended it.
    """

    def __init__(
        self,
        node: LifecycleNode,
        camera: CameraSetup,
        device: torch.device,
        deliver: Callable[[CameraFrame], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._node = node
        self._name = camera.name
        self._config = camera.config
        self._diagnostics = camera.diagnostics
        self._device = device
        self._deliver = deliver
        self._rectified = image_is_rectified(node, camera.config.current.input, camera.name)
        self._transforms = Transforms(node)
        self._references = References(camera.diagnostics, camera.config, self._transforms)
        self._motion = CameraMotion(camera.diagnostics, camera.config, self._transforms)
        self._synchronizer = Synchronizer(camera.config, self._receive, camera.diagnostics, rectified=self._rectified)
        self.decoder = DecoderThread(deliver, self._references.depth, camera.diagnostics.reject, camera.config, failed)
        self._subscriptions: list = []
        self._camera: tuple[object, Camera] | None = None
        self._doubts: set[str] = set()  # about calibrations, that were warned about

    def subscribe(self) -> None:
        """Open the subscriptions unless they are open."""
        if not self._subscriptions:
            callbacks = {
                IMAGE_INPUT: self._synchronizer.image,
                INFO_INPUT: self._synchronizer.info,
                DEPTH_INPUT: self._receive_depth,
                POINTS_INPUT: self._references.points,
                ODOMETRY_INPUT: self._motion.odometry,
            }
            self._motion.listen()
            subscriptions = subscribe(self._node, self._config.current, callbacks, self._name)
            self._synchronizer.take_infos = partial(take_all, subscriptions[INFO_INPUT])
            self._subscriptions = list(subscriptions.values())

    def unsubscribe(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    @property
    def dropped(self) -> int:
        """Frames that a newer one overtook before their camera_info came, or replaced before the decoder."""
        return self._synchronizer.dropped + self.decoder.queue.dropped.get(self._name, 0)

    def close(self) -> None:
        self.unsubscribe()
        self._transforms.close()

    def read(
        self, frame: CameraFrame, config: Config, scale_filter: ScaleFilter, metric_depth: MetricDepth
    ) -> ModelInput:
        """The model's input for a frame; called in the model thread.

        Where no other sensor measured depth, or what it measured last was refused, the reference is points from the
        camera's motion or depth of the metric model, if ``scale_filter`` has a use for them. Raises MessageError for
        any problem with a message.
        """
        with only_message_errors():
            image = image_to_tensor(frame.image, config.input) if frame.pixels is None else frame.pixels
            header = frame.image.header
            camera = self._camera_of(frame, image.shape[0], image.shape[1], config.input.fov)
            reference = self._references.for_frame(header, camera, config.scale, scale_filter.refused)
            is_missing = scale_filter.wants_other(reference)
            if is_missing and scale_filter.wants(ODOMETRY, stamp_seconds(header), config.scale):
                reference = self._motion.for_frame(image, header, camera, config.scale) or reference
            if scale_filter.wants_other(reference):
                reference = metric_depth.take() or reference
        return ModelInput(image, camera, reference)

    def _receive(self, frame: CameraFrame) -> None:
        self._diagnostics.frame_id = frame.image.header.frame_id
        # With compressed depth every frame takes this way, behind the depth that came before it.
        if isinstance(frame.image, CompressedImage) or self._config.current.input.reference_transport != "raw":
            self.decoder.queue.put(self._name, frame)
        else:
            self._deliver(frame)

    def _receive_depth(self, message: Image | CompressedImage) -> None:
        if isinstance(message, CompressedImage):
            self.decoder.queue.put(DEPTH, message)
        else:
            self._references.depth(message)

    def _camera_of(self, frame: CameraFrame, height: int, width: int, fov: float) -> Camera:
        """The frame's camera, kept while the calibration stays the same, because its rays take time to compute."""
        info = frame.info
        key = height, width, None if info is None else Calibration.of(info)
        if self._camera is None or self._camera[0] != key:
            if info is None:
                assumed = Camera.from_fov(width, height, fov)
                camera = Camera(width, height, assumed.K.to(self._device))
            else:
                camera = camera_from_info(info, height, width, self._device, rectified=self._rectified)
                doubt = Calibration.of(info).doubt(rectified=self._rectified)
                if doubt and doubt not in self._doubts:
                    self._doubts.add(doubt)
                    self._node.get_logger().warning(f"{input_topic(INFO_INPUT, self._name)}: {doubt}")
            self._camera = key, camera
        return self._camera[1]
