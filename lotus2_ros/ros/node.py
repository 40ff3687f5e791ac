"""The lifecycle node ``perception``: camera images in; depth, normals and clouds out."""

from __future__ import annotations

import os
import sys
import time

import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from lotus2_ros.config import NONE, Config, ConfigError
from lotus2_ros.config.installed import FASTDDS_PROFILE, fastdds_profile
from lotus2_ros.inference.estimator import Estimator, load_estimator
from lotus2_ros.model.engine.device import use_threads
from lotus2_ros.ros import parameters
from lotus2_ros.ros.diagnostics import diagnostic_array
from lotus2_ros.ros.pipeline import Pipeline
from lotus2_ros.ros.publishers import Publishers


class PerceptionNode(LifecycleNode):
    """Configure loads the model and warms it up, activate starts what `Pipeline` is, cleanup frees the GPU."""

    def __init__(self, **node_options: object) -> None:
        super().__init__("perception", **node_options)
        self._config: Config = parameters.declare(self)
        self._estimator: Estimator | None = None
        self._outputs: Publishers | None = None
        self._pipeline: Pipeline | None = None
        self._failure: Exception | None = None
        # The pipeline's threads cannot change the node's state: they wake the node's own thread to do it.
        self._failed = self.create_guard_condition(self.trigger_deactivate)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 1)
        self.add_pre_set_parameters_callback(parameters.follow_aliases)
        self.add_on_set_parameters_callback(
            parameters.on_change(lambda: self._config, lambda: self._estimator is not None, self._accept)
        )

    @property
    def autostart(self) -> bool:
        return self._config.node.autostart

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and run it once. FAILURE, with one clear line, when that fails: it stays unconfigured."""
        start = time.perf_counter()
        problem = ""
        try:
            self._estimator = self._load()
        except (ValueError, OSError, RuntimeError) as error:  # the last is torch's, of a GPU that is too small
            # CUDA's and the compiler's have more lines, of advice and of their own innards.
            problem = str(error).partition("\n")[0]
        if self._estimator is None:
            self.get_logger().error(f"cannot configure: {problem}")
            self._free()  # only now: the error's traceback held what was loaded
            return TransitionCallbackReturn.FAILURE
        self._outputs = Publishers(self)
        model, seconds = self._estimator.model, time.perf_counter() - start
        self.get_logger().info(
            f"model {model.name} ({model.precision}) on {self._estimator.device}, "
            f"process resolution {self._estimator.process_resolution} px, ready after {seconds:.1f} s"
        )
        return TransitionCallbackReturn.SUCCESS

    def _load(self) -> Estimator:
        self._progress("loading the model")
        estimator = load_estimator(self._config, live=True)
        sizes = [size.split("x") for size in self._config.model.warm_up if size != NONE]
        steps = [step for width, height in sizes for step in estimator.warm_up(int(height), int(width))]
        for number, (what, run) in enumerate(steps, start=1):
            self._progress(f"{number} of {len(steps)}, {what}")
            run()
        return estimator

    def _progress(self, what: str) -> None:
        """Say what configuring is at: it holds the node's thread, so no timer could."""
        if not self.context.ok():  # compiling takes minutes, and whoever interrupts it should not have to wait for all
            raise RuntimeError("interrupted")
        self.get_logger().info(f"configuring: {what}")
        self._diagnostics.publish(diagnostic_array(self, DiagnosticStatus.OK, f"configuring: {what}", {}))

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe, and start the pipeline's threads."""
        assert self._estimator is not None and self._outputs is not None  # configured
        result = super().on_activate(state)
        self._pipeline = Pipeline(
            self, self._estimator, self._outputs, self._diagnostics, lambda: self._config, self._fail
        )
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the pipeline after the step under way. ERROR when it is here because one of its threads failed."""
        self._stop()
        super().on_deactivate(state)
        return TransitionCallbackReturn.ERROR if self._failure else TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and its GPU memory."""
        self._free()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self._free()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a thread of the pipeline failed: say why, free everything; the node can then be configured anew."""
        failure, self._failure = self._failure, None
        reason = "a transition failed" if failure is None else f"{type(failure).__name__}: {failure}"
        self.get_logger().error(f"in error state: {reason}")
        del failure  # its traceback holds the model
        self._free()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """End all threads. A process that ends while one is in the middle of its work aborts."""
        self._stop()

    def _accept(self, config: Config) -> None:
        self._config = config
        if self._estimator is not None:
            self._estimator.config = config

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error  # what another thread ran into after it is a consequence
        self._failed.trigger()

    def _stop(self) -> None:
        pipeline, self._pipeline = self._pipeline, None
        try:
            if pipeline is not None:
                pipeline.stop()
        except TimeoutError as error:
            self._failure = error

    def _free(self) -> None:
        if self._outputs is not None:
            self._outputs.destroy()
        self._outputs = self._estimator = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; 2 when its parameters are not valid."""
    use_threads(1)  # of this thread; the model's own has its share
    os.environ.setdefault(FASTDDS_PROFILE, str(fastdds_profile()))  # or large messages would be lost
    rclpy.init(args=args)
    executor = SingleThreadedExecutor()
    node = None
    try:
        node = PerceptionNode()
        executor.add_node(node)
        if node.autostart and node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            node.trigger_activate()
        executor.spin()
    except ConfigError as error:
        print(f"perception: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError:
        # An interruption between two of rclpy's own steps makes the next one fail for want of a context.
        if rclpy.ok():
            raise
    finally:
        if node is not None:
            node.close()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
