"""The node's parameters and life, seen from another process."""

import time

import pytest
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lotus2_ros.msg import FrameReport
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import Image

from lotus2_ros.demo.deadlines import allowed

pytestmark = pytest.mark.ros
IMAGE = torch.full((36, 52, 3), 128, dtype=torch.uint8)


def set_parameter(client, name, value):
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    return client.call(SetParameters, "set_parameters", request).results[0]


def test_parameters_are_described_and_refused_with_a_reason(start, client):
    start({"qos_overrides./perception/points.publisher.reliability": "best_effort"})
    client.until(lambda: client.state() == "active", "active node")
    topics = "depth/image", "points", "disparity/image"

    def publishers(topic):
        return client.node.get_publishers_info_by_topic(f"/perception/{topic}")

    # A service's answer may be here before the topics are known.
    client.until(lambda: all(map(publishers, topics)), "publishers")
    qos = {topic: publishers(topic)[0].qos_profile.reliability for topic in topics}
    best_effort, reliable = ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE
    assert qos == {"depth/image": reliable, "points": best_effort, "disparity/image": reliable}
    answer = client.call(DescribeParameters, "describe_parameters", DescribeParameters.Request(names=["sharp.steps"]))
    described = answer.descriptors[0]
    assert "Euler steps" in described.description and described.integer_range[0].to_value == 50
    assert set_parameter(client, "sharp.period", 2.5).successful
    for name, value, reason in (
        ("sharp.steps", 99, "99"),
        ("model.posterior", "median", "expected one of mode, sample, got 'median'"),
        ("model.device", "cpu", "only while the node is unconfigured"),
    ):
        result = set_parameter(client, name, value)
        assert not result.successful and reason in result.reason


def test_a_former_parameter_name_works_at_start_and_later(start, client):
    node = start({"node.autostart": "false", "model.conditioning": "float32"})

    def value():
        answer = client.call(GetParameters, "get_parameters", GetParameters.Request(names=["model.timestep_dtype"]))
        return answer.values[0].string_value

    assert value() == "float32"
    assert set_parameter(client, "model.conditioning", "bfloat16").successful and value() == "bfloat16"
    refused = set_parameter(client, "model.conditioning", "int8")
    assert not refused.successful and "model.timestep_dtype: expected one of bfloat16, float32" in refused.reason
    assert node.output().count("model.conditioning is now called model.timestep_dtype") == 1


def test_lifecycle_by_hand(start, client, tmp_path):
    node = start({"node.autostart": "false", "model.path": tmp_path / "nowhere"})
    assert client.state() == "unconfigured"
    assert not client.change_state(Transition.TRANSITION_CONFIGURE)
    assert client.state() == "unconfigured" and f"{tmp_path / 'nowhere'}: no such folder" in node.output()


def test_lifecycle_all_the_way_round_twice(start, client, random_bundle):
    node = start({"node.autostart": "false", "model.path": "nowhere"})
    assert set_parameter(client, "model.path", str(random_bundle)).successful
    client.node.create_subscription(FrameReport, "/perception/report", client.received["report"].append, 10)
    for turn in range(2):
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            assert client.change_state(transition)
        client.received["report"].clear()
        client.subscribe(Image, "disparity/image")
        client.repeat(lambda turn=turn: client.send_frame(IMAGE, turn), lambda: client.received["report"], "report")
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
            assert client.change_state(transition)
    assert node.stop() == 0


def test_invalid_parameters_end_the_start_with_one_line(start):
    node = start({"sharp.steps": 99})
    assert node.process.wait(allowed(60)) == 2
    (line,) = node.output().splitlines()
    assert line.startswith("perception: ") and "sharp.steps out of range. Min: 0, Max: 50, value: 99" in line


FAILING = """
import sys
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.ros.node import main
def predict(self, *args, **kwargs):
    raise RuntimeError("CUDA out of memory")
Estimator.predict = predict
sys.exit(main())
"""


def test_a_failure_of_the_model_drives_the_node_to_its_error_state(start, client):
    node = start({"model.warm_up": "[none]", "node.retry": 0}, command=("-c", FAILING))
    client.subscribe(Image, "disparity/image")
    text = "in error state: RuntimeError: CUDA out of memory"
    client.repeat(lambda: client.send_frame(IMAGE, 1), lambda: text in node.output(), "error")
    assert client.state() == "unconfigured"  # freed, and ready to be configured anew
    assert client.change_state(Transition.TRANSITION_CONFIGURE)


def test_a_failure_to_warm_up_is_one_clear_line(start, client):
    node = start({"node.retry": 0}, command=("-c", FAILING.replace("out of memory", "out of memory\\nand advice")))
    client.until(lambda: "cannot configure" in node.output(), "error")
    assert client.state() == "unconfigured"
    (line,) = (line for line in node.output().splitlines() if "cannot configure" in line)
    assert line.endswith("cannot configure: CUDA out of memory") and "advice" not in node.output()


BROKEN = """
import sys
from lotus2_ros.ros import publishers
from lotus2_ros.ros.node import main
def broken(name, payload, header):
    raise RuntimeError("no message")
publishers.message_of = broken
sys.exit(main())
"""


def test_a_failure_to_publish_drives_the_node_to_its_error_state(start, client):
    node = start({"node.retry": 0}, command=("-c", BROKEN))
    client.subscribe(Image, "disparity/image")
    text = "in error state: RuntimeError: no message"
    client.repeat(lambda: client.send_frame(IMAGE, 1), lambda: text in node.output(), "error")
    assert client.state() == "unconfigured"
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        assert client.change_state(transition)


def test_configuring_tells_how_far_it_is(start, client):
    node = start({"node.autostart": "false", "model.warm_up": "[96x64, 64x48]"})
    diagnostics = []
    client.node.create_subscription(DiagnosticArray, "/diagnostics", diagnostics.append, 10)
    steps = [
        "configuring: loading the model",
        "configuring: 1 of 4, 96x64 core predictor of depth and normals",
        "configuring: 2 of 4, 96x64 detail sharpener",
        "configuring: 3 of 4, 64x48 core predictor of depth and normals",
        "configuring: 4 of 4, 64x48 detail sharpener",
    ]

    def configure():
        if client.state() == "inactive":  # this was too early for the node to know of the subscription
            assert client.change_state(Transition.TRANSITION_CLEANUP)
        assert client.change_state(Transition.TRANSITION_CONFIGURE)

    client.repeat(configure, lambda: steps[-1] in [array.status[0].message for array in diagnostics], steps[-1])
    assert [step for step in steps if step in node.output()] == steps
    assert {array.status[0].level for array in diagnostics} == {DiagnosticStatus.OK}


def test_it_ends_on_sigint_without_a_traceback(start, client):
    node = start()
    client.until(lambda: client.state() == "active", "active node")
    begun = time.monotonic()
    assert node.stop() == 0 and time.monotonic() - begun < allowed(10)
    assert "Traceback" not in node.output()
