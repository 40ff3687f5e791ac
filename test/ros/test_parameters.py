"""Parameters as users write them on the command line and in YAML, where `yes` is a boolean and `[]` is nothing."""

from collections.abc import Iterator

import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter

from lotus2_ros.config import Config, ConfigError
from lotus2_ros.config.live import LiveConfig
from lotus2_ros.ros.parameters import declare, on_change


@pytest.fixture
def context(domain) -> Iterator[Context]:
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    yield context
    rclpy.shutdown(context=context)


def declared(context: Context, *given: str) -> tuple[Node, Config]:
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
    node, config = declared(context)
    live = LiveConfig(config)
    node.add_on_set_parameters_callback(on_change(live, lambda: True, lambda new: setattr(live, "current", new)))
    answers = node.set_parameters(
        [
            Parameter("cloud.max_depth", value=8),
            Parameter("cloud.min_depth", value=9.0),
            Parameter("sharp.period", value="soon"),
        ]
    )
    assert [answer.successful for answer in answers] == [True, False, False]
    assert "cloud.min_depth: expected at most cloud.max_depth (8), got 9" in answers[1].reason
    assert live.current.cloud.max_depth == 8.0
    node.destroy_node()


def test_an_error_of_the_callback_is_an_answer(context):
    node, config = declared(context)

    def broken(new: Config) -> None:
        raise RuntimeError("no memory")

    node.add_on_set_parameters_callback(on_change(LiveConfig(config), lambda: True, broken))
    (answer,) = node.set_parameters([Parameter("sharp.period", value=2.0)])
    assert not answer.successful and answer.reason == "no memory"
    node.destroy_node()
