"""No exception of a callback ends the process or stops the other callbacks."""

from collections.abc import Iterator

import pytest
import rclpy
from lifecycle_msgs.srv import GetState
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image

from lotus2_ros.ros.executor import ResilientExecutor


@pytest.fixture
def spun(domain) -> Iterator[tuple[Node, ResilientExecutor, list[Exception]]]:
    context, errors = Context(), []
    rclpy.init(context=context, domain_id=domain)
    node, executor = Node("node", context=context), ResilientExecutor(errors.append, context=context)
    executor.add_node(node)
    yield node, executor, errors
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


def until(executor, done, send=lambda: None):
    for _ in range(1000):
        if done():
            return
        send()
        executor.spin_once(0.02)
    raise AssertionError("expected it to happen within 1000 callbacks")


def broken(*_):
    raise ZeroDivisionError("in a callback")


def test_a_timer_and_a_message_that_fail(spun):
    node, executor, errors = spun
    ticks = []
    node.create_timer(0.01, broken)
    node.create_timer(0.01, lambda: ticks.append(1))
    node.create_subscription(Image, "image", broken, 1)
    publisher = node.create_publisher(Image, "image", 1)
    until(executor, lambda: len(errors) > 5 and len(ticks) > 5, lambda: publisher.publish(Image()))
    assert {type(error) for error in errors} == {ZeroDivisionError}


def test_a_service_that_fails(spun):
    node, executor, errors = spun
    node.create_service(GetState, "broken", broken)
    client = node.create_client(GetState, "broken")
    until(executor, client.service_is_ready)
    for count in (1, 2):
        client.call_async(GetState.Request())
        until(executor, lambda count=count: len(errors) == count)


def test_a_message_that_cannot_be_taken_does_not_stop_the_callbacks_after_it(spun, monkeypatch):
    """rclpy would leave its default callback group locked for ever."""
    node, executor, errors = spun
    widths = []
    node.create_subscription(Image, "image", lambda message: widths.append(message.width), 10)
    publisher = node.create_publisher(Image, "image", 10)
    take = SingleThreadedExecutor._take_subscription

    def failing(self, subscription):
        message = take(self, subscription)
        if not errors:
            raise RuntimeError("cannot be deserialized")
        return message

    monkeypatch.setattr(SingleThreadedExecutor, "_take_subscription", failing)
    until(executor, lambda: 7 in widths, lambda: publisher.publish(Image(width=7)))
    assert [str(error) for error in errors] == ["cannot be deserialized"]


def test_bytes_that_are_no_message_do_not_stop_the_callbacks_after_them(spun):
    node, executor, _ = spun
    widths = []
    node.create_subscription(Image, "image", lambda message: widths.append(message.width), 10)
    publisher = node.create_publisher(Image, "image", 10)
    until(executor, lambda: widths, lambda: publisher.publish(Image(width=3)))
    for _ in range(10):
        publisher.publish(b"\x00\x01\x00\x00" + b"\xff" * 60)  # a string of 4 GB
        executor.spin_once(0.02)
    until(executor, lambda: 7 in widths, lambda: publisher.publish(Image(width=7)))
