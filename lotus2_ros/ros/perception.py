"""The lifecycle node ``perception``: camera images in; depth, normals and clouds out."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.timer import Timer

from lotus2_ros.config import NONE, ConfigError
from lotus2_ros.config.errors import first_line
from lotus2_ros.config.names import NODE
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.loading import load_estimator
from lotus2_ros.model.engine.memory import check_headroom, free_compiled
from lotus2_ros.model.image_size import ImageSizeError
from lotus2_ros.ros import parameters
from lotus2_ros.ros.camera_setup import CameraSetup
from lotus2_ros.ros.diagnostics import Diagnostics
from lotus2_ros.ros.pipeline import STOP_TIMEOUT, Pipeline
from lotus2_ros.ros.publishers import Publishers
from lotus2_ros.ros.subscriptions import TRANSPORTS, topic_of

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class PerceptionNode(LifecycleNode):
    """Configuring loads the model and warms it up, activating starts the pipeline, cleaning up frees the model.

    The parameter ``cameras`` names several cameras that share the model; without it there is one.

    With autostart the node configures and activates itself, again after a failure as ``node.retry`` says.
    """

    def __init__(self, **node_options: object) -> None:
        super().__init__(NODE, **node_options)
        # A shutdown of the context destroys the nodes it tracks, in the thread that watches for signals. Kilted is the
        # first distribution in which it tracks any.
        if hasattr(self.context, "untrack_node"):
            self.context.untrack_node(self)
        self.gave_up = False  # the node failed, and the process should end
        try:
            self._configs = parameters.declare(self)
        except ConfigError:
            self.destroy_node()
            raise
        self._estimator: Estimator | None = None
        self._outputs: dict[str, Publishers] = {}  # by camera
        self._pipeline: Pipeline | None = None
        self._failure: Exception | None = None
        self._retries = 0
        self._retry_timer: Timer | None = None
        self._closed = False
        # The pipeline's threads cannot change the node's state. They wake the executor thread to do it.
        self._failure_signal = self.create_guard_condition(self._leave_active)
        self._diagnostics = {name: Diagnostics(self, config, name) for name, config in self._configs.cameras.items()}
        if hasattr(self, "add_pre_set_parameters_callback"):  # Humble has none: former names count at start only
            self.add_pre_set_parameters_callback(parameters.follow_aliases)
        self.add_on_set_parameters_callback(parameters.on_change(self._configs, lambda: self._estimator is not None))

    def start(self) -> None:
        """Configure and activate, if the node starts by itself; try again after a failure."""
        if not self._configs.common.current.node.autostart or self.state != "unconfigured":
            return
        if self.trigger_configure() != SUCCESS or self.trigger_activate() != SUCCESS:
            self._recover()

    def resolve_topic_name(self, topic: str, *, only_expand: bool = False) -> str:
        """The full name of a topic; that of a compressed one follows the remapping of its base (image_transport)."""
        base, _, transport = topic.rpartition("/")
        if transport in TRANSPORTS and not only_expand:
            topic = topic_of(self, base, transport)
        return super().resolve_topic_name(topic, only_expand=only_expand)

    @property
    def state(self) -> str:
        """The label of the lifecycle state."""
        return self._state_machine.current_state[1]

    # Lifecycle transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and run it once. On failure log one clear line and stay unconfigured."""
        start = time.perf_counter()
        problem = ""
        try:
            self._estimator = self._load()
        except (ValueError, OSError, RuntimeError) as error:  # torch raises RuntimeError if the GPU is too small
            problem = first_line(error)  # those of CUDA and the compiler go on, with advice and internals
        if self._estimator is None:
            if self.context.ok():
                self.get_logger().error(f"cannot configure: {problem}")
                self._set_state(DiagnosticStatus.ERROR, f"cannot configure: {problem}")
            self._free()  # only now, because the error's traceback held what was loaded
            return FAILURE
        self._outputs = {name: Publishers(self, name) for name in self._configs.cameras}
        model, seconds = self._estimator.model, time.perf_counter() - start
        self.get_logger().info(
            f"model {model.name} ({model.precision}) on {self._estimator.device}, "
            f"process resolution {self._estimator.process_resolution} px, ready after {seconds:.1f} s"
        )
        self._set_state(DiagnosticStatus.OK, "inactive")
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the pipeline's threads."""
        assert self._estimator is not None  # configured
        result = super().on_activate(state)
        cameras = [
            CameraSetup(name, config, self._outputs[name], self._diagnostics[name], self._configs.weights[name])
            for name, config in self._configs.cameras.items()
        ]
        self._pipeline = Pipeline(self, self._estimator, cameras, self._configs.common, self._fail)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the pipeline after the step in progress. ERROR if one of its threads failed."""
        self._stop()
        super().on_deactivate(state)
        if self._failure:
            return TransitionCallbackReturn.ERROR
        self._set_state(DiagnosticStatus.OK, "inactive")
        return SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and its GPU memory."""
        self._free()
        self._set_state(DiagnosticStatus.OK, "unconfigured")
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self._free()
        self._set_state(DiagnosticStatus.OK, "finalized")
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a failure: log the reason and free everything. The node can then be configured again."""
        failure, self._failure = self._failure, None
        reason = "a transition failed" if failure is None else f"{type(failure).__name__}: {failure}"
        self.get_logger().error(f"in error state: {reason}")
        self._set_state(DiagnosticStatus.ERROR, reason)
        del failure  # its traceback holds the model
        self._stop()
        self._free()
        return SUCCESS

    # Failures

    def callback_failed(self, error: Exception) -> None:
        """Count and log an exception of a callback, timer or service. The node goes on."""
        diagnostics = next(iter(self._diagnostics.values()))
        diagnostics.reject("callback", f"{type(error).__name__}: {error}", frame=False)

    def _fail(self, error: Exception) -> None:
        """Called in a thread of the pipeline that ended with an exception."""
        if not self._closed:
            self._failure = self._failure or error  # later ones are consequences
            self._failure_signal.trigger()

    def _leave_active(self) -> None:
        if self.state != "active":  # deactivated in the meantime
            return
        if any(diagnostics.processed for diagnostics in self._diagnostics.values()):
            self._retries = 0
        self.trigger_deactivate()
        self._recover()

    def _recover(self) -> None:
        """After a failure configure and activate again later, or give up."""
        config = self._configs.common.current.node
        if not self.context.ok():
            return
        if config.autostart and self._retries < config.retry:
            pause = config.pause_before(self._retries)
            self._retries += 1
            self.get_logger().warning(f"trying again in {pause:g} s ({self._retries} of {config.retry})")
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self._retry_timer = self.create_timer(pause, self._retry, clock=steady)
        elif config.exit_on_failure:
            self.get_logger().fatal("giving up after a failure (node.exit_on_failure)")
            self.gave_up = True
            self.context.try_shutdown()

    def _retry(self) -> None:
        timer, self._retry_timer = self._retry_timer, None
        if timer is not None:
            self.destroy_timer(timer)
        self.start()

    # Loading and freeing

    def _load(self) -> Estimator:
        config = self._configs.common.current
        self._progress("loading the model")
        estimator = load_estimator(config, live=True)
        sizes = [size.split("x") for size in config.model.warm_up if size != NONE]
        # Cameras may have process resolutions of their own.
        by_resolution = {own.current.model.process_resolution: own.current for own in self._configs.cameras.values()}
        steps: list[tuple[str, Callable[[], None]]] = []
        for own, (width, height) in product(by_resolution.values(), sizes):
            try:
                steps += estimator.with_config(own).warm_up(int(height), int(width))
            except ImageSizeError as error:
                self.get_logger().warning(f"no warm-up for {width}x{height}: {error}")
        for number, (what, run) in enumerate(steps, start=1):
            self._progress(f"{number} of {len(steps)}, {what}")
            run()
        check_headroom(estimator.device)
        return estimator

    def _set_state(self, level: bytes, message: str) -> None:
        for diagnostics in self._diagnostics.values():
            diagnostics.set_state(level, message)

    def _progress(self, what: str) -> None:
        """Log and publish the step of configuring, which blocks the executor thread and so every timer."""
        if not self.context.ok():  # compiling takes minutes, and an interrupt should not have to wait for all of it
            raise RuntimeError("interrupted")
        self.get_logger().info(f"configuring: {what}")
        self._set_state(DiagnosticStatus.OK, f"configuring: {what}")

    def close(self, timeout: float) -> None:
        """End the threads, and the node even if one of them is still busy after ``timeout`` seconds."""
        self._closed = True
        self._stop(timeout)
        self.destroy_node()

    def destroy_node(self) -> None:
        """Destroy the node and its DDS participant, which holds a segment of shared memory."""
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()  # it holds the node, and rclpy forgets it

    def _stop(self, timeout: float = STOP_TIMEOUT) -> None:
        pipeline, self._pipeline = self._pipeline, None
        try:
            if pipeline is not None:
                pipeline.stop(timeout)
        except TimeoutError as error:
            self._failure = error

    def _free(self) -> None:
        for publishers in self._outputs.values():
            publishers.destroy()
        self._outputs, self._estimator = {}, None
        free_compiled()
