"""Plays a camera bag into a running node: ``python -m lotus2_ros.ros.player BAG``.

Prints one JSON object per line: ``{"event": "frame", "count": n, "stamp_ns": t}`` for every image sent, ``{"event":
"played"}`` after the last. Then it stays until it is interrupted, because the last messages may still be on their way.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import time
from pathlib import Path

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from lotus2_ros.bags import read_messages
from lotus2_ros.bags.writer import COMPRESSED_TOPIC, IMAGE_TOPIC, INPUT_TOPICS
from lotus2_ros.ros.serialized import message_class
from lotus2_ros.ros.start import RosStartError, start_ros

STAY = 600.0  # seconds after the last message, should nobody interrupt
TELL_AFTER = 20.0  # seconds of waiting


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--rate", type=float, required=True, help="Speed: 1 is that of the recording")
    parser.add_argument("--subscribers", type=int, required=True, help="Wait for this many on every topic")
    parser.add_argument("--timeout", type=float, required=True, help="Seconds to wait for them")
    args = parser.parse_args()
    start_ros([], signals=SignalHandlerOptions.ALL)
    try:
        publishers = advertise(Node("player"), args.bag)
        wait_for_subscribers(publishers, args.subscribers, args.timeout)
        play(args.bag, publishers, args.rate)
        end = time.monotonic() + STAY
        while rclpy.ok() and time.monotonic() < end:
            time.sleep(0.1)
    finally:
        rclpy.try_shutdown()


def advertise(node: Node, bag: Path) -> dict[str, Publisher]:
    """A reliable publisher for each topic of the bag that the node listens to."""
    kinds = {topic: kind for topic, kind, _, _ in read_messages(bag, INPUT_TOPICS)}
    qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
    return {topic: node.create_publisher(message_class(kind), topic, qos) for topic, kind in kinds.items()}


def wait_for_subscribers(publishers: dict[str, Publisher], count: int, timeout: float) -> None:
    """Until every publisher is matched with ``count`` subscribers; after a while stderr says what is waited for.

    Raises TimeoutError that names the topic.
    """
    deadline = time.monotonic() + timeout
    silent_until = time.monotonic() + TELL_AFTER
    for topic, publisher in publishers.items():
        while (found := publisher.get_subscription_count()) < count:
            if time.monotonic() > deadline or not rclpy.ok():
                raise TimeoutError(f"{topic}: expected {count} subscribers within {timeout:g} s, got {found}")
            if time.monotonic() > silent_until:
                print(f"player: {topic}: waiting for {count} subscribers, {found} so far", file=sys.stderr, flush=True)
                silent_until += TELL_AFTER
            time.sleep(0.02)


def play(bag: Path, publishers: dict[str, Publisher], rate: float) -> None:
    """Send the messages as they are, stamps included, at the times of the bag divided by ``rate``.

    The stamps may jump: ``write_frames`` keeps the times of the bag without long gaps.
    """
    start = time.monotonic()
    first: int | None = None
    count = 0
    for topic, _, time_ns, raw in read_messages(bag, INPUT_TOPICS):
        first = time_ns if first is None else first
        time.sleep(max(0.0, start + (time_ns - first) * 1e-9 / rate - time.monotonic()))
        if not rclpy.ok():
            return
        publishers[topic].publish(raw)
        if topic in (IMAGE_TOPIC, COMPRESSED_TOPIC):
            count += 1
            tell(event="frame", count=count, stamp_ns=header_stamp_ns(raw))
    for publisher in publishers.values():
        publisher.wait_for_all_acked(Duration(seconds=5))
    tell(event="played")


def header_stamp_ns(raw: bytes) -> int:
    """Nanoseconds of the stamp of a message in CDR that begins with a header."""
    order = "<" if raw[1] & 1 else ">"  # behind the four bytes that say how the rest is encoded
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", raw, 4)
    return seconds * 10**9 + nanoseconds


def tell(**event: object) -> None:
    print(json.dumps(event), flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    except (TimeoutError, RosStartError) as error:
        raise SystemExit(f"player: {error}") from None
