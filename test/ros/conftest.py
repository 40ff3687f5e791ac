"""A real node in its own process, and a client that talks to it over DDS in a domain of their own."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import rclpy
import torch
from domains import claimed_domain
from forks import Forks
from lifecycle_msgs.srv import ChangeState, GetState
from lotus2_ros.msg import FrameReport
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from lotus2_ros.bags.writer import INPUT_TOPICS
from lotus2_ros.config.installed import FASTDDS_PROFILE, fastdds_profile
from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.ros.messages import tensor_to_image

TIMEOUT = 120.0  # seconds of a quiet machine, several leases of DDS; only ever reached when a test fails
WARM = 2  # the first stamp, in seconds, of what is sent after warming up


class Client:
    """Publishers and subscriptions of a test."""

    def __init__(self, domain: int) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = Node("client", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.received: dict[str, list] = defaultdict(list)
        self._first_stamp = 0
        self._publishers: dict[str, object] = {}

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def until(self, done: Callable[[], bool], what: str, timeout: float = TIMEOUT) -> None:
        """Spin until ``done``; fails after ``timeout`` seconds of a quiet machine."""
        begun = time.monotonic()
        while not done():
            assert time.monotonic() - begun < allowed(timeout), f"no {what} within {allowed(timeout):.0f} s"
            self.executor.spin_once(timeout_sec=0.05)

    def repeat(self, send: Callable[[], object], done: Callable[[], bool], what: str, pause: float = 0.3) -> None:
        """Send again and again until ``done``. Two processes discover each other's ends of a topic one by one, and what
        is sent before all of them are known is lost; nothing tells a process what the other has yet to find.
        """
        begun = due = time.monotonic()
        while not done():
            assert time.monotonic() - begun < allowed(TIMEOUT), f"no {what} within {allowed(TIMEOUT):.0f} s"
            if time.monotonic() >= due:
                due = time.monotonic() + pause
                send()
            self.executor.spin_once(timeout_sec=0.05)

    def subscribe(self, kind: type, *topics: str) -> None:
        """Keep what comes on ``/perception/<topic>``."""
        qos = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
        for topic in topics:
            self.node.create_subscription(kind, f"/perception/{topic}", partial(self._keep, topic), qos)

    def _keep(self, topic: str, message) -> None:
        if message.header.stamp.sec >= self._first_stamp:
            self.received[topic].append(message)

    def publish(self, topic: str, message) -> None:
        if topic not in self._publishers:
            self._publishers[topic] = self.node.create_publisher(type(message), topic, QoSProfile(depth=10))
        self._publishers[topic].publish(message)

    def call(self, kind: type, service: str, request, pause: float = 5.0):
        """The answer of a service, asked again after each ``pause``, in seconds.

        A node drops an answer for which it has not yet found the client's end, on a busy machine above all.
        """
        client = self.node.create_client(kind, f"/perception/{service}")
        self.until(client.service_is_ready, service)
        futures: list = []
        self.repeat(
            lambda: futures.append(client.call_async(request)),
            lambda: any(future.done() for future in futures),
            f"answer of {service}",
            pause,
        )
        return next(future for future in futures if future.done()).result()

    def state(self) -> str:
        return self.call(GetState, "get_state", GetState.Request()).current_state.label

    def change_state(self, transition: int) -> bool:
        request = ChangeState.Request()
        request.transition.id = transition
        return self.call(ChangeState, "change_state", request, pause=math.inf).success  # a second one would be another

    def send_frame(self, image: torch.Tensor, stamp: int, depth: torch.Tensor | None = None, **info) -> Header:
        """An image with its camera_info, and before it a reference if there is one."""
        header = Header(frame_id="camera_optical")
        header.stamp.sec, header.stamp.nanosec = stamp, 250_000_000
        height, width = image.shape[:2]
        k = info.pop("k", [0.8 * width, 0.0, 0.45 * width, 0.0, 0.9 * height, 0.55 * height, 0.0, 0.0, 1.0])
        if depth is not None:
            self.publish("reference/depth", tensor_to_image(depth, "32FC1", header))
        size = {"width": width, "height": height, **info}
        self.publish("camera_info", CameraInfo(header=header, k=k, **size))
        self.publish("image", tensor_to_image(image, "rgb8", header))
        return header

    def send_and_wait(self, image: torch.Tensor, stamp: int, depth: torch.Tensor | None = None) -> Header:
        """Send one frame and wait for its report, which must be subscribed to; its header."""
        header = self.send_frame(image, stamp, depth)
        self.until(lambda: any(r.header == header for r in self.received["report"]), f"report of {stamp}")
        return header

    def warm_up(self, image: torch.Tensor, *topics: str, depth: torch.Tensor | None = None) -> FrameReport:
        """Send frames until each topic has brought one, then forget them all; the last report of these.

        Topics do not wait for each other: what came of these frames may still be under way on one when their report is
        here, so it is forgotten by its stamp.
        """
        self._first_stamp = 0
        self.repeat(
            lambda: self.send_frame(image, 0, depth), lambda: all(self.received[t] for t in topics), str(topics)
        )
        # Whatever the node has still to answer is answered before a frame of a new stamp.
        self.send_and_wait(image, WARM - 1, depth)
        last = self.received["report"][-1]
        self._first_stamp = WARM
        for messages in self.received.values():
            messages.clear()
        return last


NODE = "-m", "lotus2_ros.ros.node"


class NodeProcess:
    """``python -m lotus2_ros.ros.node`` with parameters; what it prints is kept.

    With ``forks`` it starts with its imports done, which saves each most of its CPU time.
    """

    def __init__(self, domain: int, log: Path, command: Sequence[str], parameters: dict, forks: Forks | None) -> None:
        arguments = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        arguments = [*command, "--ros-args", *arguments]
        env = {**os.environ, "ROS_DOMAIN_ID": str(domain), "OMP_NUM_THREADS": "1"}
        self.log = log
        with log.open("w") as output:
            if forks is None:
                self.process = subprocess.Popen([sys.executable, *arguments], env=env, stdout=output, stderr=output)
            else:
                self.process = forks.start(arguments, env, stdout=output, stderr=output)

    def output(self) -> str:
        return self.log.read_text()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(allowed(TIMEOUT))
        finally:
            self.process.kill()


def isolate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Talk to nobody outside this machine, and lose no large messages."""
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv(FASTDDS_PROFILE, str(fastdds_profile()))


@pytest.fixture
def domain(monkeypatch) -> Iterator[int]:
    """A domain of its own, for this process and those that it starts."""
    isolate(monkeypatch)
    with claimed_domain() as domain:
        yield domain


@pytest.fixture
def client(domain) -> Iterator[Client]:
    client = Client(domain)
    yield client
    client.close()


@pytest.fixture
def node_with(domain) -> Iterator[Callable[..., Node]]:
    """Make a node of this process, in the namespace /robot, with these remappings."""
    context, nodes = Context(), []
    context.init(domain_id=domain)

    def make(*remappings: str) -> Node:
        arguments = [word for remapping in remappings for word in ("-r", remapping)]
        nodes.append(Node("perception", context=context, cli_args=["--ros-args", *arguments], namespace="/robot"))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    context.shutdown()


@pytest.fixture
def start(domain, tmp_path, random_bundle, forks) -> Iterator[Callable[..., NodeProcess]]:
    """Start the node; parameters as keywords in a dict, the random bundle as its model unless told otherwise."""
    started: list[NodeProcess] = []

    def start(parameters: dict | None = None, command: Sequence[str] = NODE, forked: bool = True) -> NodeProcess:
        # Compiling the model takes longer than most of these tests.
        values = {"model.path": random_bundle, "model.engine": "torch", **(parameters or {})}
        values = {name: value for name, value in values.items() if value is not None}
        log = tmp_path / f"node{len(started)}.log"
        node = NodeProcess(domain, log, command, values, forks if forked else None)
        started.append(node)
        return node

    yield start
    for node in started:
        node.stop()
        print(node.output())  # pytest shows it when the test failed


@pytest.fixture(scope="module")
def lasting(tmp_path_factory, forks) -> Iterator[tuple[Client, NodeProcess]]:
    """A client and a node with the bundled model that all tests of a module share; parameters are set as it runs."""
    with claimed_domain() as domain, pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch)
        client = Client(domain)
        parameters = {"sharp.enabled": False, "model.threads": 1, "model.warm_up": "[320x240]"}
        # A best-effort reader may lose a message on a busy machine, and a reference is sent only once.
        parameters |= {f"qos_overrides.{topic}.subscription.reliability": "reliable" for topic in INPUT_TOPICS}
        log = tmp_path_factory.mktemp("lasting") / "node.log"
        node = NodeProcess(domain, log, NODE, parameters, forks)
        yield client, node
        client.close()
        node.stop()
