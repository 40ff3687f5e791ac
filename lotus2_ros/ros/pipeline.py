"""The way of a frame while the node is active, from image to published geometry, and the threads it passes through:

executor thread   Image + CameraInfo -> Synchronizer -> CameraFrame;  depth, points -> References
      |
decoder thread    CompressedImage -> tensor, behind a latest queue of its own
      |
 latest queue     a newer frame replaces one that waits
      |
model thread      tensor -> Estimator.predict -> payloads;  between two frames one step of the sharpener
      |
 latest queue     one place per stage, so a slow subscriber never holds up the model
      |
sender thread     messages -> publish, FrameReport
      |
 latest queue     a cloud every cloud.filter_period seconds
      |
filter thread     voxels, outliers (open3d in a process of its own) -> publish
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CompressedImage

from lotus2_ros.config.live import LiveConfig
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.inference.sharpening import Sharpening
from lotus2_ros.model.engine.device import Download, copy_stream, finish, use_threads
from lotus2_ros.model.interface import ImageSizeError
from lotus2_ros.ros.decoder import DecoderThread
from lotus2_ros.ros.diagnostics import Diagnostics, Monitored
from lotus2_ros.ros.filtered import CloudFilterThread, UnfilteredCloud
from lotus2_ros.ros.inputs import Inputs
from lotus2_ros.ros.messages import MessageError, stamp_seconds
from lotus2_ros.ros.publishers import FILTERED, Publishers, payloads_of
from lotus2_ros.ros.report import sharpener_note
from lotus2_ros.ros.synchronizer import CameraFrame
from lotus2_ros.ros.threads import LatestQueue, ModelThread, SenderThread
from lotus2_ros.scale.filter import ScaleFilter

CAMERA = "camera"
DEMAND_PERIOD = 0.25  # seconds between two looks at who subscribes
STOP_TIMEOUT = 30.0  # seconds; longer than any step of the model


@dataclass(frozen=True)
class CoarseResult:
    """A result of the core predictor that the sharpener may refine."""

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
class PublishRequest:
    """A geometry for the sender thread, with the payloads of its topics."""

    frame: CameraFrame
    geometry: Geometry
    before: dict[str, float]  # seconds per stage before the estimator's stages
    payloads: Download


class Pipeline:
    """Runs from activation to deactivation."""

    def __init__(
        self,
        node: LifecycleNode,
        estimator: Estimator,
        publishers: Publishers,
        diagnostics: Diagnostics,
        config: LiveConfig,
        failed: Callable[[Exception], None],
    ) -> None:
        self._node = node
        self._estimator = estimator
        self._publishers = publishers
        self._diagnostics = diagnostics
        self._config = config
        self._scale_filter = ScaleFilter()
        self._copies = copy_stream(estimator.device)
        self._sender = SenderThread(self._send, failed)
        self._filter = CloudFilterThread(
            publishers.publish_filtered,
            config,
            missing=lambda reason: node.get_logger().error(f"~/{FILTERED} is not published: {reason}"),
            failed=failed,
        )
        self._model: ModelThread[CameraFrame, CoarseResult] = ModelThread(
            LatestQueue(),
            self._predict,
            self._sharpen,
            config,
            failed,
            enter=lambda: use_threads(config.current.model.threads),
        )
        self._decoder = DecoderThread(partial(self._model.queue.put, CAMERA), diagnostics.reject, config, failed)
        self._monitored = Monitored(estimator, self._dropped, lambda: bool(self._wanted_tasks()))
        diagnostics.activate(self._monitored)
        self._inputs = Inputs(node, diagnostics, config, estimator.device, self._receive)
        self._timer = node.create_timer(
            DEMAND_PERIOD, self._follow_demand, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        for thread in (self._filter, self._sender, self._model, self._decoder):
            thread.start()

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Unsubscribe, then end the threads after the step in progress. Raises TimeoutError if one does not end."""
        self._node.destroy_timer(self._timer)
        self._inputs.close()
        self._diagnostics.deactivate()
        deadline = time.monotonic() + timeout
        alive = [
            thread.name
            for thread in (self._decoder, self._model, self._sender, self._filter)
            if not thread.stop(max(0.0, deadline - time.monotonic()))
        ]
        if alive:
            raise TimeoutError(f"expected all threads to end within {timeout:g} s, still running: {', '.join(alive)}")

    # In the executor thread

    def _follow_demand(self) -> None:
        """Subscribe to the inputs while someone subscribes to a result."""
        if self._wanted_tasks():
            self._inputs.subscribe()
        else:
            self._inputs.unsubscribe()

    def _receive(self, frame: CameraFrame) -> None:
        self._diagnostics.frame_id = frame.image.header.frame_id
        queue = self._decoder.queue if isinstance(frame.image, CompressedImage) else self._model.queue
        queue.put(CAMERA, frame)

    # In any thread

    def _wanted_tasks(self) -> set[str]:
        """The model's tasks whose results someone subscribes to."""
        wanted = self._publishers.tasks("core") | self._sharp_tasks()
        return wanted.intersection(self._estimator.model.tasks)

    def _sharp_tasks(self) -> set[str]:
        return set() if sharpener_note(self._estimator) else self._publishers.tasks("sharpener")

    def _dropped(self) -> int:
        """Frames that a newer one replaced: in the synchronizer, or before the decoder, the model or the sender."""
        waiting = self._decoder.queue.dropped.get(CAMERA, 0) + self._model.queue.dropped.get(CAMERA, 0)
        return self._inputs.dropped + waiting + self._sender.queue.dropped.get("core", 0)

    # In the model thread

    def _predict(self, frame: CameraFrame) -> CoarseResult | None:
        """Predict one frame and queue it for the sender. Returns what the sharpener may refine, or None."""
        wanted, sharp = self._wanted_tasks(), self._sharp_tasks()
        if not wanted:
            self._diagnostics.skip()
            return None
        scale = self._config.current.scale
        stamp = stamp_seconds(frame.image.header)
        started = time.perf_counter()
        try:
            given = self._inputs.read(frame)
            converted = time.perf_counter()
            height, width = given.image.shape[:2]
            if self._estimator.is_new(height, width):
                self._node.get_logger().info(f"first image of {width}x{height}: warming up")
            if "depth" in wanted and self._scale_filter.wants_normals(stamp, given.reference, scale):
                wanted.add("normals")
            tasks = [task for task in self._estimator.model.tasks if task in wanted]
            geometry = self._estimator.predict(
                given.image,
                given.camera,
                given.reference,
                tasks=tasks,
                scale_filter=self._scale_filter,
                stamp=stamp,
                with_sigma=self._publishers.wants_sigma(self._config.current.cloud),
            )
        except MessageError as error:
            self._diagnostics.reject(error.reason, str(error))
            return None
        except ImageSizeError as error:
            self._diagnostics.reject("image_size", str(error))
            return None
        self._queue_for_sender(frame, geometry, {"wait": started - frame.arrived, "convert": converted - started})
        refinable = [task for task in tasks if task in sharp and self._estimator.model.has_sharpener(task)]
        return CoarseResult(frame, geometry, refinable) if refinable else None

    def _sharpen(self, coarse: CoarseResult) -> SharpenAndPublish:
        """Refine a coarse result and publish it with its own stamp."""
        sharpening = self._estimator.sharpen(coarse.geometry, tasks=coarse.tasks)
        return SharpenAndPublish(sharpening, lambda sharp: self._queue_for_sender(coarse.frame, sharp, {}))

    def _queue_for_sender(self, frame: CameraFrame, geometry: Geometry, before: dict[str, float]) -> None:
        """Compute the payloads of all subscribed topics. The rest is the sender's."""

        def is_wanted(name: str) -> bool:
            return (name != FILTERED or is_filter_due) and self._publishers.is_wanted(geometry.stage, name)

        with geometry.stopwatch("pack"):
            is_filter_due = self._filter.is_due(geometry.stage)
            payloads = payloads_of(geometry, frame.info, self._config.current.cloud, is_wanted)
        request = PublishRequest(frame, geometry, before, Download(payloads, self._copies))
        self._sender.queue.put(geometry.stage, request)
        # More work asked of a GPU now would be queued there, and the next frame taken would no longer be the newest.
        finish(self._estimator.device)

    # In the sender thread

    def _send(self, request: PublishRequest) -> None:
        """Publish the payloads and the report; leave a cloud to the filter thread."""
        frame, geometry = request.frame, request.geometry
        header = frame.image.header
        start = time.perf_counter()
        payloads = request.payloads.wait()
        unfiltered = payloads.pop(FILTERED, None)
        if unfiltered is not None:
            self._filter.put(UnfilteredCloud(geometry.stage, unfiltered, header))
        self._publishers.publish(geometry.stage, payloads, header)
        end = time.perf_counter()
        latency = {**request.before, **geometry.latency, "publish": end - start, "total": end - frame.arrived}
        self._diagnostics.published(geometry, latency)
        if self._publishers.report.get_subscription_count() > 0:
            self._publishers.report.publish(self._diagnostics.report(self._monitored, geometry, latency, header))
