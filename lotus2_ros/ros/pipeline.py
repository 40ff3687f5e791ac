"""The way of a frame while the node is active, from image to published geometry, and the threads it passes through.

With several cameras one model thread serves them in turn. The other threads are each camera's own.

executor thread   Image + CameraInfo -> Synchronizer -> CameraFrame;  depth, points -> References;  odometry
      |
decoder thread    CompressedImage -> tensor, behind a latest queue of its own;  compressed depth -> References
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
from collections.abc import Callable, Sequence

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode

from lotus2_ros.config.live import LiveConfig
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.model.engine.device import use_threads
from lotus2_ros.ros.camera_pipeline import CameraPipeline
from lotus2_ros.ros.camera_setup import CameraSetup
from lotus2_ros.ros.threads import LatestQueue, ModelThread, Predictable

DEMAND_PERIOD = 0.25  # seconds between two looks at who subscribes
STOP_TIMEOUT = 30.0  # seconds; longer than any step of the model


class Pipeline:
    """Runs from activation to deactivation: the model thread, and the pipeline of each camera."""

    def __init__(
        self,
        node: LifecycleNode,
        estimator: Estimator,
        cameras: Sequence[CameraSetup],
        common: LiveConfig,
        failed: Callable[[Exception], None],
    ) -> None:
        self._node = node
        queue: LatestQueue[Predictable] = LatestQueue({camera.name: camera.weight for camera in cameras})
        self._model = ModelThread(queue, failed, enter=lambda: use_threads(common.current.model.threads))
        self._cameras = [CameraPipeline(node, estimator, camera, queue, failed) for camera in cameras]
        self._timer = node.create_timer(
            DEMAND_PERIOD, self._follow_demand, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._model.start()

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Unsubscribe, then end the threads after the step in progress. Raises TimeoutError if one does not end."""
        self._node.destroy_timer(self._timer)
        for camera in self._cameras:
            camera.close()
        deadline = time.monotonic() + timeout
        threads = [self._model, *(thread for camera in self._cameras for thread in camera.threads)]
        alive = [thread.name for thread in threads if not thread.stop(max(0.0, deadline - time.monotonic()))]
        if alive:
            raise TimeoutError(f"expected all threads to end within {timeout:g} s, still running: {', '.join(alive)}")

    def _follow_demand(self) -> None:
        for camera in self._cameras:
            camera.follow_demand()
