"""A running graph: listens with the node's own subscriptions, and checks who publishes and subscribes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo

from lotus2_ros.config import Config
from lotus2_ros.config.installed import FASTDDS_PROFILE, fastdds_profile
from lotus2_ros.config.names import IMAGE_INPUT, INFO_INPUT
from lotus2_ros.ros.doctor.connection import DEFAULT_SEGMENT, FAST_DDS, profile_problem
from lotus2_ros.ros.doctor.evidence import INPUTS, Evidence, Stream
from lotus2_ros.ros.doctor.findings import Checks, Finding, hint, ok, wrong
from lotus2_ros.ros.doctor.processes import UnreadableError, is_local, process_of
from lotus2_ros.ros.executor import ResilientExecutor
from lotus2_ros.ros.start import start_ros
from lotus2_ros.ros.subscriptions import image_is_rectified, subscribe

NAME = "lotus2_doctor"
# Seconds until a node is known: Fast DDS repeats every 3 s who is there, and the first time may be lost.
DISCOVERY = 8.0
SETTLED = 1.0  # seconds without a change after which a graph with other nodes is known
PAUSE = 0.05


@dataclass
class Graph:
    """A node in the graph, what it heard, and by topic who publishes and who subscribes."""

    evidence: Evidence
    publishers: Mapping[str, list[TopicEndpointInfo]]
    subscribers: Mapping[str, list[TopicEndpointInfo]]
    own: bytes  # the GUID of an endpoint of this process
    others: int  # nodes beside this one
    middleware: str
    failures: list[Exception]  # of messages that could not be taken


def listen(config: Config, names: Mapping[str, str], seconds: float) -> Graph:
    """Listen to the node's inputs, remapped by ``names``.

    It waits until images and camera_info have publishers or the graph is known otherwise, and listens ``seconds`` then.
    Raises RosStartError.
    """
    os.environ.setdefault(FASTDDS_PROFILE, str(fastdds_profile()))  # as the node does
    remapped = [word for name, topic in names.items() for word in ("-r", f"{name}:={topic}")]
    context = Context()
    start_ros(["--ros-args", *remapped] if remapped else None, context=context)
    node = Node(NAME, context=context)
    failures: list[Exception] = []
    executor = ResilientExecutor(failures.append, context=context)
    executor.add_node(node)
    try:
        evidence = _hear(node, executor, config, seconds)
        topics = [stream.topic for stream in evidence.streams.values()]
        return Graph(
            evidence,
            publishers={topic: node.get_publishers_info_by_topic(topic) for topic in topics},
            subscribers={topic: node.get_subscriptions_info_by_topic(topic) for topic in topics},
            own=_own_gid(node),
            others=len(node.get_node_names()) - 1,
            middleware=rclpy.get_rmw_implementation_identifier(),
            failures=failures,
        )
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)


def _hear(node: Node, executor: ResilientExecutor, config: Config, seconds: float) -> Evidence:
    streams: dict[str, Stream] = {}

    def keep(name: str, message: Any) -> None:
        if name in streams:  # what comes before all publishers are found would spoil the rates
            streams[name].add(message, time.time())

    subscriptions = subscribe(node, config, {name: partial(keep, name) for name in INPUTS})
    links = _follow_transforms(node)
    _discover(node, executor, [subscriptions[name].topic_name for name in (IMAGE_INPUT, INFO_INPUT)], seconds)
    streams |= {name: Stream(subscriptions[name].topic_name) for name in INPUTS}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        executor.spin_once(timeout_sec=PAUSE)
    for stream in streams.values():
        stream.publishers = node.count_publishers(stream.topic)
    topics = {topic: kinds[0] for topic, kinds in node.get_topic_names_and_types()}
    return Evidence(
        config=config,
        place=f"ROS_DOMAIN_ID {node.context.get_domain_id()}",
        streams=streams,
        rectified=image_is_rectified(node, config.input),
        topics={topic: kind for topic, kind in topics.items() if node.count_publishers(topic)},
        links=links,
    )


def _discover(node: Node, executor: ResilientExecutor, needed: list[str], seconds: float) -> None:
    """Wait until these topics have publishers, or other nodes are there and the graph has not changed for ``seconds``.

    At most DISCOVERY, or ``seconds`` if that is more.
    """
    settled, end = max(seconds, SETTLED), time.monotonic() + max(seconds, DISCOVERY)
    known, changed = None, time.monotonic()
    while not all(map(node.count_publishers, needed)) and (now := time.monotonic()) < end:
        graph = sorted(node.get_node_names()), node.get_topic_names_and_types()
        if graph != known:
            known, changed = graph, now
        elif len(graph[0]) > 1 and now - changed >= settled:
            return
        executor.spin_once(timeout_sec=PAUSE)


def _follow_transforms(node: Node) -> set[tuple[str, str]] | None:
    """(parent, child) of all transforms, filled while the node spins; None without tf2_msgs."""
    try:
        from tf2_msgs.msg import TFMessage  # part of a ROS distribution, not a Python package of its own
    except ImportError:
        return None
    links: set[tuple[str, str]] = set()

    def take(message: Any) -> None:
        links.update((item.header.frame_id, item.child_frame_id) for item in message.transforms)

    node.create_subscription(TFMessage, "/tf", take, QoSProfile(depth=100))
    latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node.create_subscription(TFMessage, "/tf_static", take, latched)
    return links


def _own_gid(node: Node) -> bytes:
    """By the topic that every node publishes."""
    infos = node.get_publishers_info_by_topic("/parameter_events")
    own = [info for info in infos if info.node_name == node.get_name()]
    return bytes(own[0].endpoint_gid) if own else b""


def check_graph(graph: Graph) -> Iterator[Finding]:
    place = graph.evidence.place
    if graph.others:
        yield ok(f"{graph.others} other nodes in {place}, {graph.middleware}")
    else:
        advice = "start the robot with this ROS_DOMAIN_ID and the same ROS_AUTOMATIC_DISCOVERY_RANGE, and no firewall"
        yield wrong(f"no other node in {place}", "a camera driver", advice)
    for name in (IMAGE_INPUT, INFO_INPUT):
        topic = graph.evidence.streams[name].topic
        names = sorted(publisher.node_name for publisher in graph.publishers[topic])
        if len(names) > 1:
            advice = "stop the others, or remap them to topics of their own"
            yield wrong(f"{topic} has {len(names)} publishers: {', '.join(names)}", "one", advice)
    for error in {str(error): error for error in graph.failures}.values():
        yield wrong(f"a message cannot be read: {error}", mend="the same message definitions on both sides")


def check_qos(graph: Graph) -> Iterator[Finding]:
    """Every publisher of an input with every subscription to it: the node's, or this program's like it."""
    count = 0
    for topic, publishers in graph.publishers.items():
        for publisher in publishers:
            for subscriber in graph.subscribers[topic]:
                count += 1
                compatible, reason = qos_check_compatible(publisher.qos_profile, subscriber.qos_profile)
                if compatible == QoSCompatibility.ERROR:
                    yield _mismatch(topic, publisher, subscriber, reason)
    if count:
        yield ok(f"{count} pairs of publishers and subscribers compared")


def _mismatch(topic: str, publisher: TopicEndpointInfo, subscriber: TopicEndpointInfo, reason: str) -> Finding:
    offered, requested = publisher.qos_profile, subscriber.qos_profile
    found = (
        f"{topic}: {publisher.node_name} offers {offered.reliability.name} {offered.durability.name}, "
        f"{subscriber.node_name} requests {requested.reliability.name} {requested.durability.name}: "
        f"{reason.strip().rstrip(';')}"
    )
    advice = f"qos_overrides.{topic}.subscription.reliability:=best_effort for {subscriber.node_name}"
    return wrong(found, "that it receives the messages", advice)


def check_publishers(graph: Graph) -> Iterator[Finding]:
    """The Fast DDS profile in the environment of the processes that publish the inputs."""
    if graph.middleware != FAST_DDS:
        return
    for stream in graph.evidence.streams.values():
        largest = max((len(message.data) for message in stream.samples.values() if hasattr(message, "data")), default=0)
        is_large = largest > DEFAULT_SEGMENT or not stream.times
        for publisher in graph.publishers[stream.topic]:
            gid = bytes(publisher.endpoint_gid)
            if graph.own and is_local(gid, graph.own) and (is_large or "image" in stream.topic):
                yield _environment(stream.topic, publisher.node_name, gid, is_large)


def _environment(topic: str, name: str, gid: bytes, is_large: bool) -> Finding:
    mend = f"export {FASTDDS_PROFILE}={fastdds_profile()} where {name} is started, and start it again"
    try:
        process = process_of(gid)
    except UnreadableError as error:
        return hint(f"{topic}: the environment of {name} is not known, {error}", FASTDDS_PROFILE, mend)
    problem = profile_problem(process.environment)
    who = f"{topic}: {name}, process {process.pid} ({process.command})"
    if not problem:
        return ok(f"{who}, has {FASTDDS_PROFILE}={process.environment[FASTDDS_PROFILE]}")
    expected = "the profile: without it large messages are lost between processes"
    return (wrong if is_large else hint)(f"{who}: {problem}", expected, mend)


GRAPH: Checks[Graph] = {"graph": check_graph, "qos": check_qos, "publishers": check_publishers}
