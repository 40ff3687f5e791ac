"""Records the inputs and outputs of the node, except filtered clouds: ``python -m lotus2_ros.ros.recorder OUT.mcap``.

Prints one JSON object per line, ``{"event": "report", ...}``, for each FrameReport of the node.
It ends when it is interrupted; only then is the bag complete.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType

import rclpy
from lifecycle_msgs.srv import GetState
from rclpy.node import Node, NodeNameNonExistentError
from rclpy.qos import QoSProfile, ReliabilityPolicy

from lotus2_ros.bags import BagWriter
from lotus2_ros.bags.frames import FRAME_REPORT
from lotus2_ros.bags.writer import IMAGE_TOPIC
from lotus2_ros.ros.messages import stamp_nanoseconds
from lotus2_ros.ros.player import tell
from lotus2_ros.ros.report import COUNTERS
from lotus2_ros.ros.serialized import deserialize, message_class
from lotus2_ros.ros.start import RosStartError, start_ros
from lotus2_ros.ros.topics import FILTERED

# Not recorded: the topics of every ROS node, and filtered clouds, for which a process uses a whole core while somebody
# subscribes.
SKIPPED = ("/rosout", "/parameter_events", "/clock", "transition_event", FILTERED)
DRAIN_QUIET, DRAIN_TIMEOUT = 0.5, 5.0  # seconds
ASK_AGAIN = 5.0  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--node", required=True, help="Name of the node to record")
    parser.add_argument("--timeout", type=float, required=True, help="Seconds to wait for its topics")
    args = parser.parse_args()
    on_signal(signal.default_int_handler)  # KeyboardInterrupt, as long as there is nothing to record
    start_ros([])
    try:
        with BagWriter(args.bag) as bag:
            recorder = Node("recorder")
            wait_until_active(recorder, args.node, args.timeout)
            # The node subscribes to its inputs only while somebody subscribes to its outputs.
            subscribe(recorder, bag, outputs_of(recorder, args.node, args.timeout))
            subscribe(recorder, bag, inputs_of(recorder, args.node, args.timeout))
            interrupted = threading.Event()
            on_signal(lambda *_: interrupted.set())
            while not interrupted.is_set():
                rclpy.spin_once(recorder, timeout_sec=0.1)
            drain(recorder, bag)
    finally:
        rclpy.try_shutdown()


def on_signal(handler: Callable[[int, FrameType | None], object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def drain(recorder: Node, bag: BagWriter) -> None:
    """Write what has already arrived: until nothing came for a while, or a node goes on and on."""
    deadline = time.monotonic() + DRAIN_TIMEOUT
    quiet_since, written = time.monotonic(), bag.count
    while time.monotonic() < min(deadline, quiet_since + DRAIN_QUIET):
        rclpy.spin_once(recorder, timeout_sec=0.1)
        if bag.count != written:
            quiet_since, written = time.monotonic(), bag.count


def subscribe(recorder: Node, bag: BagWriter, topics: dict[str, str]) -> None:
    # Deep enough for all topics of a few frames: writing one frame must not lose the next.
    qos = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
    for topic, kind in topics.items():
        callback = partial(record, bag, topic, kind)
        recorder.create_subscription(message_class(kind), topic, callback, qos, raw=True)


def wait_until_active(recorder: Node, name: str, timeout: float) -> None:
    """Raises TimeoutError, or RuntimeError when the node ends up in another state."""
    state = node_state(recorder, name, timeout)
    if state != "active":
        raise RuntimeError(f"expected the node {name} to be active, got {state}")


def outputs_of(recorder: Node, name: str, timeout: float) -> dict[str, str]:
    """Topic and type of all that the node publishes. Raises TimeoutError."""
    ask = partial(recorder.get_publisher_names_and_types_by_node, name, "/")
    return node_topics(recorder, ask, lambda topic, kind: kind == FRAME_REPORT, "a report", timeout)


def inputs_of(recorder: Node, name: str, timeout: float) -> dict[str, str]:
    """Topic and type of all that the node subscribes to, after somebody wants its outputs. Raises TimeoutError.

    The player starts when the recorder is there on these topics: by then it is there on the outputs as well.
    """
    ask = partial(recorder.get_subscriber_names_and_types_by_node, name, "/")
    return node_topics(recorder, ask, lambda topic, kind: topic.startswith(IMAGE_TOPIC), "images", timeout)


def node_topics(
    recorder: Node,
    ask: Callable[[], list[tuple[str, list[str]]]],
    is_last: Callable[[str, str], bool],
    what: str,
    timeout: float,
) -> dict[str, str]:
    """The topics that ``ask`` knows of, without SKIPPED, as soon as ``is_last`` is true for one of them."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        with suppress(NodeNameNonExistentError):  # its services may be known before its name is
            found = {topic: kinds[0] for topic, kinds in ask()}
            if any(is_last(topic, kind) for topic, kind in found.items()):
                return {topic: kind for topic, kind in found.items() if not topic.endswith(SKIPPED)}
        rclpy.spin_once(recorder, timeout_sec=0.05)
    raise TimeoutError(f"expected {what} among the topics of the node within {timeout:g} s")


def node_state(recorder: Node, name: str, timeout: float) -> str:
    """Label of the lifecycle state; a node that starts by itself answers only after it has tried to."""
    client = recorder.create_client(GetState, f"/{name}/get_state")
    deadline, future = time.monotonic() + timeout, None
    while client.wait_for_service(max(0.0, deadline - time.monotonic())) and time.monotonic() < deadline:
        if future is not None:
            print(
                f"recorder: the node {name} did not answer in {ASK_AGAIN:g} s, asked again", file=sys.stderr, flush=True
            )
        # Asked again: an answer is lost if the node knows of the question before it knows of who asks.
        future = client.call_async(GetState.Request())
        rclpy.spin_until_future_complete(recorder, future, timeout_sec=ASK_AGAIN)
        if future.done():
            break
    if future is None or not future.done():
        raise TimeoutError(f"expected the node {name} to answer within {timeout:g} s")
    return future.result().current_state.label


def record(bag: BagWriter, topic: str, kind: str, raw: bytes) -> None:
    bag.write_raw(topic, kind, raw, time.time_ns())
    if kind == FRAME_REPORT:
        report = deserialize(raw, kind)
        tell(
            event="report",
            stage=report.stage,
            stamp_ns=stamp_nanoseconds(report.header),
            counters={name: getattr(report, f"frames_{name}") for name in COUNTERS},
        )


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    except (OSError, RuntimeError, RosStartError) as error:  # a full disk, say
        raise SystemExit(f"recorder: {error}") from None
