"""What runs while the node is active: subscriptions, mailbox, the model's thread, the sender's, diagnostics."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher

from lotus2_ros.config import Config
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.inference.sharpening import Sharpening
from lotus2_ros.model.engine.device import Download, copy_stream, finish, use_threads
from lotus2_ros.model.interface import ImageSizeError
from lotus2_ros.ros.diagnostics import PERIOD, Diagnostics, sharpener_note
from lotus2_ros.ros.filtered import Cloud, CloudFilterThread
from lotus2_ros.ros.messages import (
    MessageError,
    calibration_from_info,
    camera_from_info,
    image_to_tensor,
    stamp_seconds,
)
from lotus2_ros.ros.publishers import FILTERED, Publishers
from lotus2_ros.ros.references import References
from lotus2_ros.ros.synchronizer import CameraFrame, Synchronizer, image_is_rectified, subscribe
from lotus2_ros.ros.threads import LatestQueue, ModelThread, SenderThread
from lotus2_ros.scale.filter import ScaleFilter

CAMERA = "camera"
STOP_TIMEOUT = 30.0  # seconds; longer than any one step of the model


@dataclass(frozen=True)
class Pending:
    """A coarse result that the sharpener may refine."""

    frame: CameraFrame
    geometry: Geometry
    tasks: list[str]


@dataclass(frozen=True)
class SharpenAndPublish:
    """The steps of a sharpening, and one more that publishes its result. So a waiting frame waits for one of them."""

    sharpening: Sharpening
    publish: Callable[[Geometry], None]

    def step(self) -> bool:
        if not self.sharpening.done:
            self.sharpening.step()
            return True
        self.publish(self.sharpening.result())
        return False


@dataclass(frozen=True)
class Outgoing:
    """A geometry on its way out, with what is subscribed to of it."""

    frame: CameraFrame
    geometry: Geometry
    before: dict[str, float]  # seconds per stage before the estimator's
    contents: Download


class Pipeline:
    """From activation to deactivation.

    Callbacks run in the node's thread. All work on the device is asked for in the worker's; messages are made and sent
    in the sender's, while the worker is at the next frame.
    """

    def __init__(
        self,
        node: LifecycleNode,
        estimator: Estimator,
        outputs: Publishers,
        diagnostics: Publisher,
        config: Callable[[], Config],
        failed: Callable[[Exception], None],
    ) -> None:
        self._node = node
        self._estimator = estimator
        self._outputs = outputs
        self._diagnostics = diagnostics
        self._config = config
        queue: LatestQueue[CameraFrame] = LatestQueue()
        self._health = Diagnostics(node, estimator, queue, lambda: config().node.warn_period)
        self._references = References(node, self._health, config)
        self._aligner = ScaleFilter()
        self._rectified = image_is_rectified(node, config().input)
        self._camera: tuple[object, Camera] | None = None
        self._copies = copy_stream(estimator.device)
        self._sender = SenderThread(self._send, failed)
        self._filtered = CloudFilterThread(
            outputs.publish_filtered,
            lambda: config().cloud,
            missing=lambda reason: node.get_logger().error(f"nothing comes on ~/{FILTERED}: {reason}"),
            failed=failed,
        )
        self._worker = ModelThread(
            queue,
            self._predict,
            self._sharpen,
            period=lambda: config().sharp.period,
            share=lambda: config().sharp.share,
            failed=failed,
            enter=lambda: use_threads(config().model.threads),
        )
        self._filtered.start()
        self._sender.start()
        self._worker.start()
        pairing = Synchronizer(config, lambda frame: queue.put(CAMERA, frame), self._health)
        self._subscriptions = subscribe(node, config(), pairing, self._references)
        # By the steady clock: diagnostics go on while a simulated clock is paused.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(PERIOD, self._diagnose, clock=steady)

    def stop(self) -> None:
        """Unsubscribe, end the model's thread after the step under way, then the sender's and the filter's.

        Raises TimeoutError if one of them does not end.
        """
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._node.destroy_timer(self._timer)
        deadline = time.monotonic() + STOP_TIMEOUT
        for name, thread in (("model", self._worker), ("sender", self._sender), ("filter", self._filtered)):
            if not thread.stop(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"the {name}'s thread did not end within {STOP_TIMEOUT:g} s")
        self._references.close()

    def _diagnose(self) -> None:
        self._diagnostics.publish(self._health.diagnostics())

    # In the model's thread

    def _predict(self, frame: CameraFrame) -> Pending | None:
        """One frame's way; gives back what the sharpener may refine, or None."""
        config = self._config()
        sharp = set() if sharpener_note(self._estimator) else self._outputs.tasks("sharpener")
        wanted = self._outputs.tasks("core") | sharp
        if not wanted.intersection(self._estimator.model.tasks):
            return None
        started = time.perf_counter()
        stamp = stamp_seconds(frame.image.header)
        try:
            image = image_to_tensor(frame.image, config.input)
            height, width = image.shape[:2]
            camera = self._camera_of(frame, height, width)
            if self._estimator.is_new(height, width):
                self._node.get_logger().info(f"first image of {width}x{height}: warming up")
            converted = time.perf_counter()
            reference = self._references.for_frame(frame.image.header, camera, config.scale)
            if "depth" in wanted and self._aligner.wants_normals(stamp, reference, config.scale):
                wanted.add("normals")
            tasks = [task for task in self._estimator.model.tasks if task in wanted]
            geometry = self._estimator.predict(
                image, camera, reference, tasks=tasks, scale_filter=self._aligner, stamp=stamp
            )
        except MessageError as error:
            self._health.reject(error.reason, str(error))
            return None
        except ImageSizeError as error:
            self._health.reject("image_size", str(error))
            return None
        self._hand_over(frame, geometry, {"wait": started - frame.arrived, "convert": converted - started})
        refinable = [task for task in tasks if task in sharp and self._estimator.model.has_sharpener(task)]
        return Pending(frame, geometry, refinable) if refinable else None

    def _sharpen(self, pending: Pending) -> SharpenAndPublish:
        """Refine a coarse result and publish it with its own stamp."""
        sharpening = self._estimator.sharpen(pending.geometry, tasks=pending.tasks)
        return SharpenAndPublish(sharpening, lambda sharp: self._hand_over(pending.frame, sharp, {}))

    def _hand_over(self, frame: CameraFrame, geometry: Geometry, before: dict[str, float]) -> None:
        """Make what is subscribed to of a geometry, and leave the rest to the sender."""
        with geometry.stopwatch("pack"):
            is_due = self._filtered.is_due(geometry.stage)
            contents = self._outputs.contents(geometry, frame.info, self._config().cloud, is_due)
        self._sender.hand(Outgoing(frame, geometry, before, Download(contents, self._copies)))
        # Asked for more at once, a GPU would queue it, and the frame in the mailbox would no longer be the newest.
        finish(self._estimator.device)

    def _camera_of(self, frame: CameraFrame, height: int, width: int) -> Camera:
        """The frame's camera; the last one as long as nothing changed, because its rays take a while to compute."""
        info = frame.info
        key = height, width, None if info is None else calibration_from_info(info)
        if self._camera is None or self._camera[0] != key:
            if info is None:
                assumed = Camera.from_fov(width, height, self._config().input.fov)
                camera = Camera(width, height, assumed.K.to(self._estimator.device))
            else:
                camera = camera_from_info(info, height, width, self._estimator.device, rectified=self._rectified)
                if doubt := calibration_from_info(info).doubt(rectified=self._rectified):
                    self._node.get_logger().warning(f"camera_info: {doubt}", once=True)
            self._camera = key, camera
        return self._camera[1]

    # In the sender's thread

    def _send(self, outgoing: Outgoing) -> None:
        """Publish, leave a cloud to the filter's thread, and account for it."""
        frame, geometry = outgoing.frame, outgoing.geometry
        header = frame.image.header
        start = time.perf_counter()
        contents = outgoing.contents.wait()
        to_filter = contents.pop(FILTERED, None)
        if to_filter is not None:
            self._filtered.put(Cloud(geometry.stage, to_filter, header))
        self._outputs.publish(geometry.stage, contents, header)
        end = time.perf_counter()
        latency = {**outgoing.before, **geometry.latency, "publish": end - start, "total": end - frame.arrived}
        self._health.done(geometry, latency)
        if self._outputs.report.get_subscription_count() > 0:
            self._outputs.report.publish(self._health.report(geometry, latency, header))
