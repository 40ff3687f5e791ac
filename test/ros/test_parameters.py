"""Parameters as users write them on the command line and in YAML, where `yes` is a boolean and `[]` is nothing."""

from collections.abc import Iterator

import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter

from lotus2_ros.config import Config, ConfigError
from lotus2_ros.config.live import CameraConfigs
from lotus2_ros.ros.parameters import declare, on_change


@pytest.fixture
def context(domain) -> Iterator[Context]:
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    yield context
    rclpy.shutdown(context=context)


def declared(context: Context, *given: str) -> tuple[Node, Config]:
    node, configs = declared_cameras(context, *given)
    return node, configs.common.current


def declared_cameras(context: Context, *given: str) -> tuple[Node, CameraConfigs]:
    words = [word for parameter in given for word in ("-p", parameter)]
    node = Node("parameters", context=context, cli_args=["--ros-args", *words] if words else [])
    return node, declare(node)


@pytest.mark.parametrize(("written", "meant"), [("yes", "yes"), ("no", "no"), ("auto", "auto"), ("true", "yes")])
def test_yes_and_no_may_be_booleans(context, written, meant):
    node, config = declared(context, f"input.rectified:={written}")
    assert config.input.rectified == meant
    node.destroy_node()


def test_a_whole_number_is_a_number(context):
    node, config = declared(context, "sharp.period:=2")
    assert config.sharp.period == 2.0 and isinstance(config.sharp.period, float)
    node.destroy_node()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("model.warm_up:=[]", r"expected at least one of none, WIDTHxHEIGHT, got \[\]; use \[none\] for none"),
        ("cloud.strid:=2", "unknown parameter cloud.strid; did you mean cloud.stride"),
        ("claud.stride:=2", "unknown parameter claud.stride; did you mean cloud.stride"),
        ("sharp.period:=.nan", "sharp.period"),
        ("sharp.enabled:=2", "sharp.enabled"),
    ],
)
def test_what_a_parameter_does_not_take_is_refused_at_start(context, given, message):
    with pytest.raises(ConfigError, match=message):
        declared(context, given)


def test_ros_own_parameters_are_not_unknown(context):
    given = "use_sim_time:=true", "qos_overrides./points.publisher.depth:=2"
    node, config = declared(context, *given)
    assert config == Config()
    node.destroy_node()


def test_the_same_holds_while_the_node_runs(context):
    node, configs = declared_cameras(context)
    node.add_on_set_parameters_callback(on_change(configs, lambda: True))
    answers = node.set_parameters(
        [
            Parameter("cloud.max_depth", value=8),
            Parameter("cloud.min_depth", value=9.0),
            Parameter("sharp.period", value="soon"),
        ]
    )
    assert [answer.successful for answer in answers] == [True, False, False]
    assert "cloud.min_depth: expected at most cloud.max_depth (8), got 9" in answers[1].reason
    assert configs.common.current.cloud.max_depth == 8.0
    node.destroy_node()


def test_an_error_of_the_callback_is_an_answer(context, monkeypatch):
    node, configs = declared_cameras(context)

    def broken(self, values) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(CameraConfigs, "update", broken)
    node.add_on_set_parameters_callback(on_change(configs, lambda: True))
    (answer,) = node.set_parameters([Parameter("sharp.period", value=2.0)])
    assert not answer.successful and answer.reason == "no memory"
    node.destroy_node()


def test_a_camera_has_the_common_values_but_its_own(context):
    given = "cameras:=[front, rear]", "front.scale.camera_height:=0.4", "cloud.stride:=3", "rear.weight:=2"
    node, configs = declared_cameras(context, *given)
    front, rear = configs.cameras["front"], configs.cameras["rear"]
    assert (front.current.scale.camera_height, rear.current.scale.camera_height) == (0.4, 0.0)
    assert front.current.cloud.stride == rear.current.cloud.stride == 3
    assert configs.weights == {"front": 1.0, "rear": 2.0}
    node.add_on_set_parameters_callback(on_change(configs, lambda: True))
    changes = {"rear.cloud.stride": 2, "cloud.stride": 4, "front.sharp.period": 3, "rear.cloud.min_depth": 9.0}
    answers = node.set_parameters([Parameter(name, value=value) for name, value in changes.items()])
    assert all(answer.successful for answer in answers)
    assert (front.current.cloud.stride, rear.current.cloud.stride) == (4, 2)
    assert (front.current.sharp.period, rear.current.sharp.period) == (3.0, 1.0)
    (answer,) = node.set_parameters([Parameter("rear.cloud.stride", value=None)])
    assert answer.successful and rear.current.cloud.stride == 4
    (wrong, fixed) = node.set_parameters(
        [Parameter("rear.cloud.max_depth", value=8.0), Parameter("front.input.rectified", value="yes")]
    )
    assert "cloud.min_depth: expected at most cloud.max_depth" in wrong.reason
    assert "front.input.rectified changes only while the node is unconfigured" in fixed.reason
    node.destroy_node()


@pytest.mark.parametrize(
    ("cameras", "given", "message"),
    [
        ("[front, front]", (), "cameras: expected different names"),
        ("[scale]", (), "none of them cloud, depth"),
        ("[left-front]", (), "letters, digits and underscores"),
        ("[front]", ("front.model.path:=/x",), "unknown parameter front.model.path"),
        ("[front]", ("rear.scale.camera_height:=1.0",), "unknown parameter rear.scale.camera_height"),
        ("[front]", ("front.weight:=0",), "front.weight: expected a number from 0.01 to 100, got 0"),
        ("[front]", ("front.scale.camera_height:=-1.0",), "front.scale.camera_height: expected 0"),
    ],
)
def test_wrong_cameras_are_refused_at_start(context, cameras, given, message):
    with pytest.raises(ConfigError, match=message):
        declared_cameras(context, f"cameras:={cameras}", *given)


@pytest.mark.parametrize("given", [(), ("cameras:=[]",), ("cameras:=[none]",)])
def test_without_names_there_is_one_camera(context, given):
    node, configs = declared_cameras(context, *given)
    assert list(configs.cameras) == [""] and configs.cameras[""] is configs.common
    node.destroy_node()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("qos_overrides./image.subscription.reliability:=bogus", "expected one of reliable, best_effort, got 'bogus'"),
        ("qos_overrides./image.subscription.reliability:=5", "expected one of reliable, best_effort, got 5"),
        ("qos_overrides./image.subscription.depth:=0", "expected 1 to 10000, got 0"),
        ("qos_overrides./image.subscription.depth:=1.5", "expected 1 to 10000, got 1.5"),
        ("qos_overrides./image.subscription.depht:=5", "one of reliability, history, depth"),
        ("qos_overrides./image.subscriber.depth:=5", "expected qos_overrides./TOPIC.publisher or subscription"),
        ("qos_overrides.image.subscription.depth:=5", "expected qos_overrides./TOPIC.publisher or subscription"),
        ("use_sim_times:=true", "unknown parameter use_sim_times"),
    ],
)
def test_overrides_of_ros_itself_are_checked_at_start(context, given, message):
    """rclpy looks at a QoS only when it opens the topic, and at a name that it does not know never."""
    with pytest.raises(ConfigError, match=message):
        declared(context, given)


def test_topics_of_ros_itself_take_any_policy(context):
    node, _ = declared(context, "qos_overrides./clock.subscription.durability:=volatile")
    node.destroy_node()
