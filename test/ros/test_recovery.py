"""After a failure: retries, or an exit that a launch file's respawn answers; and nothing of the model stays behind."""

import gc
import threading
import weakref

import pytest
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.context import Context
from sensor_msgs.msg import Image

from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.ros.perception import PerceptionNode

pytestmark = pytest.mark.ros
IMAGE = torch.full((36, 52, 3), 128, dtype=torch.uint8)

FAILING_ONCE = """
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.ros.node import main
predict, calls = Estimator.predict, []
def failing(self, *args, **kwargs):
    calls.append(1)
    if len(calls) == 1:
        raise RuntimeError("CUDA error")
    return predict(self, *args, **kwargs)
Estimator.predict = failing
main()
"""


def test_the_node_starts_again_after_a_failure_of_its_model(start, client):
    node = start({"model.warm_up": "[none]", "node.retry_backoff": 0.1}, command=("-c", FAILING_ONCE))
    client.subscribe(Image, "disparity/image")
    client.repeat(lambda: client.send_frame(IMAGE, 1), lambda: client.received["disparity/image"], "disparity")
    assert "in error state: RuntimeError: CUDA error" in node.output()
    assert node.output().count("trying again in 0.1 s (1 of 3)") == 1
    assert client.state() == "active"


def test_without_retries_left_the_process_ends_with_status_1(start):
    given = {"node.retry": 2, "node.retry_backoff": 0.05, "node.exit_on_failure": "true", "model.path": "nowhere"}
    node = start(given)
    assert node.process.wait(allowed(60)) == 1
    assert node.output().count("cannot configure: nowhere: no such folder") == 3
    assert "trying again in 0.05 s (1 of 2)" in node.output() and "trying again in 0.1 s (2 of 2)" in node.output()


def test_diagnostics_stay_at_error_after_a_failure(start, client):
    start({"node.retry": 0, "model.path": "nowhere"})
    diagnostics = []
    client.node.create_subscription(DiagnosticArray, "/diagnostics", diagnostics.append, 10)
    client.until(lambda: len(diagnostics) > 2, "diagnostics")
    last = diagnostics[-1].status[0]
    assert last.level == DiagnosticStatus.ERROR and last.message.startswith("cannot configure: nowhere: no such folder")


def test_a_shutdown_in_another_thread_leaves_the_node_to_its_own(domain):
    """rclpy destroys the nodes of a context in the thread that shuts it down, while the executor still uses them."""
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node = PerceptionNode(context=context, cli_args=["--ros-args", "-p", "node.autostart:=false"])
    try:
        signals = threading.Thread(target=context.try_shutdown)
        signals.start()
        signals.join()
        assert not context.ok() and list(node.publishers) and list(node.timers)
    finally:
        node.close(1.0)
    assert not list(node.publishers)


def test_cleanup_frees_the_model_at_once(domain, random_bundle):
    """Not only when Python next looks for reference cycles, which may be minutes later."""
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    given = f"model.path:={random_bundle}", "model.warm_up:=[none]", "node.autostart:=false"
    words = [word for parameter in given for word in ("-p", parameter)]
    node = PerceptionNode(context=context, cli_args=["--ros-args", *words])
    gc.disable()
    try:
        node.trigger_configure()
        model = weakref.ref(node._estimator.model)
        node.trigger_activate()
        node.trigger_deactivate()
        assert model() is not None
        node.trigger_cleanup()
        assert model() is None
    finally:
        gc.enable()
        node.close(1.0)
        rclpy.shutdown(context=context)
