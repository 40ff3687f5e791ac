"""The way of one camera's frames while the node is active. `pipeline.py` shows the threads it passes through."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rclpy.lifecycle import LifecycleNode

from lotus2_ros.config import Config, SharpConfig
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.facts import ModelFacts
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.model.engine.device import Download, copy_stream, finish
from lotus2_ros.model.image_size import ImageSizeError
from lotus2_ros.ros.camera_setup import CameraSetup
from lotus2_ros.ros.cloud_filter_thread import CloudFilterThread, UnfilteredCloud
from lotus2_ros.ros.diagnostics import Monitored
from lotus2_ros.ros.inputs import Inputs
from lotus2_ros.ros.messages import MessageError, stamp_seconds
from lotus2_ros.ros.metric_depth import MetricDepth
from lotus2_ros.ros.synchronizer import CameraFrame
from lotus2_ros.ros.threads import LatestQueue, Predictable, SenderThread, SharpenAndPublish
from lotus2_ros.ros.topics import FILTERED, payloads_of
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.ground import mounted_floor


@dataclass(frozen=True)
class WaitingFrame:
    """A frame that waits for the model, with the pipeline of its camera."""

    pipeline: CameraPipeline
    frame: CameraFrame

    def predict(self) -> CoarseResult | None:
        return self.pipeline.predict(self.frame)


@dataclass(frozen=True)
class CoarseResult:
    """A result of the core predictor, and the tasks that the sharpener may refine."""

    pipeline: CameraPipeline
    frame: CameraFrame
    geometry: Geometry
    tasks: list[str]

    @property
    def camera(self) -> str:
        return self.pipeline.name

    @property
    def sharp(self) -> SharpConfig:
        return self.pipeline.config.current.sharp

    def sharpen(self) -> SharpenAndPublish:
        return self.pipeline.sharpen(self)


@dataclass(frozen=True)
class PublishRequest:
    """A geometry for the sender thread, with the payloads of its topics."""

    frame: CameraFrame
    geometry: Geometry
    before: dict[str, float]  # seconds per stage before the estimator's stages
    payloads: Download


class CameraPipeline:
    """The frames of one camera: subscribed, queued for the model thread, predicted and sharpened there, and sent.

    Cameras share the model and its thread. Scale, threads after the model, counters and topics are each camera's own.
    """

    def __init__(
        self,
        node: LifecycleNode,
        estimator: Estimator,
        camera: CameraSetup,
        queue: LatestQueue[Predictable],
        failed: Callable[[Exception], None],
    ) -> None:
        """``queue``: of the model thread, by camera. ``failed``: gets the exception that ended a thread."""
        self.name = camera.name
        self._node = node
        self._estimator = estimator.with_config(camera.config.current)
        self._facts = ModelFacts.of(estimator)
        self._publishers = camera.publishers
        self._diagnostics = camera.diagnostics
        self.config = camera.config
        self._queue = queue
        self._scale_filter = ScaleFilter()
        self._metric_depth = MetricDepth(estimator.metric_model, camera.config)
        self._copies = copy_stream(estimator.device)
        self._inputs = Inputs(node, camera, estimator.device, self._enqueue, failed)
        self._sender = SenderThread(self._send, failed)
        self._filter = CloudFilterThread(
            camera.publishers.publish_filtered,
            camera.config,
            missing=lambda reason: node.get_logger().error(f"~/{FILTERED} is not published: {reason}"),
            failed=failed,
        )
        self._monitored = Monitored(
            self._facts, estimator.device, self._dropped, lambda: bool(self._wanted_tasks(camera.config.current))
        )
        self._diagnostics.activate(self._monitored)
        self.threads = self._inputs.decoder, self._sender, self._filter
        for thread in self.threads:
            thread.start()

    def close(self) -> None:
        """Unsubscribe; the threads are the caller's to stop."""
        self._inputs.close()
        self._diagnostics.deactivate()

    # In the executor thread

    def follow_demand(self) -> None:
        """Subscribe to the inputs while someone subscribes to a result."""
        if self._wanted_tasks(self.config.current):
            self._inputs.subscribe()
        else:
            self._inputs.unsubscribe()

    # In any thread

    def _enqueue(self, frame: CameraFrame) -> None:
        self._queue.put(self.name, WaitingFrame(self, frame))

    def _wanted_tasks(self, config: Config) -> set[str]:
        """The model's tasks whose results someone subscribes to."""
        wanted = self._publishers.tasks("core") | self._sharp_tasks(config.sharp)
        return wanted.intersection(self._estimator.model.tasks)

    def _sharp_tasks(self, sharp: SharpConfig) -> set[str]:
        """The tasks whose sharpened results someone subscribes to; none while the sharpener does not run."""
        return set() if self._facts.sharpener_note(sharp) else self._publishers.tasks("sharpener")

    def _dropped(self) -> int:
        """Frames that a newer one replaced: among the inputs, or before the model or the sender."""
        waiting = self._queue.dropped.get(self.name, 0) + self._sender.queue.dropped.get("core", 0)
        return self._inputs.dropped + waiting

    # In the model thread

    def predict(self, frame: CameraFrame) -> CoarseResult | None:
        """Predict one frame and queue it for the sender. Returns what the sharpener may refine, or None."""
        config = self._estimator.config = self.config.current  # one for the whole frame
        wanted, sharp = self._wanted_tasks(config), self._sharp_tasks(config.sharp)
        if not wanted:
            self._diagnostics.skip()
            return None
        stamp = stamp_seconds(frame.image.header)
        started = time.perf_counter()
        try:
            given = self._inputs.read(frame, config, self._scale_filter, self._metric_depth)
            converted = time.perf_counter()
            height, width = given.image.shape[:2]
            if self._estimator.is_new(height, width):
                self._node.get_logger().info(f"first image of {width}x{height}: warming up")
            if "depth" in wanted and (
                config.cloud.remove_ground != "none"
                or self._scale_filter.wants_normals(stamp, given.reference, config.scale)
            ):
                wanted.add("normals")
            tasks = [task for task in self._estimator.model.tasks if task in wanted]
            geometry = self._estimator.predict(
                given.image,
                given.camera,
                given.reference,
                tasks=tasks,
                scale_filter=self._scale_filter,
                stamp=stamp,
                with_sigma=self._publishers.wants_sigma(config.cloud),
            )
        except MessageError as error:
            self._diagnostics.reject(error.reason, str(error))
            return None
        except ImageSizeError as error:
            self._diagnostics.reject("image_size", str(error))
            return None
        before = {"wait": started - frame.arrived, "convert": converted - started}
        self._queue_for_sender(frame, geometry, before, config)
        self._metric_depth.run(given.image, given.camera, stamp, self._scale_filter)
        refinable = [task for task in tasks if task in sharp and self._estimator.refines(task)]
        return CoarseResult(self, frame, geometry, refinable) if refinable else None

    def sharpen(self, coarse: CoarseResult) -> SharpenAndPublish:
        """Refine a coarse result and publish it with its own stamp."""
        sharpening = self._estimator.sharpen(coarse.geometry, tasks=coarse.tasks)

        def publish(sharp: Geometry) -> None:
            self._queue_for_sender(coarse.frame, sharp, {}, self.config.current)

        return SharpenAndPublish(sharpening, publish)

    def _queue_for_sender(
        self, frame: CameraFrame, geometry: Geometry, before: dict[str, float], config: Config
    ) -> None:
        """Compute the payloads of all subscribed topics. The rest is the sender's."""
        is_filter_due = self._filter.is_due(geometry.stage)

        def is_wanted(name: str) -> bool:
            return (name != FILTERED or is_filter_due) and self._publishers.is_wanted(geometry.stage, name)

        with geometry.stopwatch("pack"):
            payloads = payloads_of(geometry, frame.info, config.cloud, is_wanted, mounted_floor(config.scale))
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
