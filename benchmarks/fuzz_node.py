"""Mutated messages and parameters into a live node: ``make fuzz``.

    python -m benchmarks.fuzz_node --messages 10000

Each batch is BATCH mutated messages (mutated_messages.py) and a mutated parameter. After it the node must answer a good
frame. In the first half images come raw, in the second half compressed.
Prints the counts. Exit code 1 if the node ends, does not answer, takes a parameter that is out of range, answers a
message with anything but a documented reason, leaves a frame unaccounted for, or if its memory grows.
"""

from __future__ import annotations

import argparse
import math
import random
import subprocess
import sys
import time
from collections import Counter

import rclpy
from lotus2_ros.msg import FrameReport
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from benchmarks.mutated_messages import HEIGHT, PICTURES, WIDTH, Case, cases
from benchmarks.programs import isolate, node, program
from benchmarks.soak import sample
from lotus2_ros.config import walk
from lotus2_ros.demo.deadlines import allowed

BATCH = 25
DEEP = 1000  # queues of both ends: what is sent arrives
MAX_GROWTH = 50  # MB of the node's memory after the first tenth of the run
UNDOCUMENTED = ("callback", "unexpected")  # reasons that stand for an exception nobody thought of
TRANSPORTS = {
    "raw": {"image": Image, "reference/depth": Image},
    "compressed": {"image/compressed": CompressedImage, "reference/depth/compressedDepth": CompressedImage},
}
NUMBERS = [math.nan, math.inf, -math.inf, 1e300, -1e300]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=10_000, help="how many (10000)")
    parser.add_argument("--seed", type=int, default=None, help="of the messages; the time by default, and printed")
    args = parser.parse_args()
    seed = time.time_ns() % 2**32 if args.seed is None else args.seed
    print(f"seed {seed}, {args.messages} messages", flush=True)
    isolate()
    rclpy.init()
    problems = []
    for transport in TRANSPORTS:
        with program(*node(parameters(transport))) as process:
            problems += NodeFuzz(transport, process, random.Random(seed)).run(args.messages // len(TRANSPORTS))
    print("\n".join(problems) or "every good frame was answered, every other message has a documented reason")
    return 1 if problems else 0


def parameters(transport: str) -> dict[str, object]:
    values: dict[str, object] = {
        "model.threads": 1,
        "model.process_resolution": 32,
        "model.warm_up": f"[{WIDTH}x{HEIGHT}]",
        "sharp.enabled": False,
        "input.image_transport": transport,
        "input.reference_transport": {"raw": "raw", "compressed": "compressedDepth"}[transport],
        "node.warn_period": 3600.0,
    }
    for topic in (*TRANSPORTS[transport], "camera_info", "reference/points"):
        values[f"qos_overrides./{topic}.subscription.reliability"] = "reliable"
        values[f"qos_overrides./{topic}.subscription.depth"] = DEEP
    return values


class NodeFuzz:
    """Sends mutated messages by one transport of images to a node, and looks at what it makes of them."""

    def __init__(self, transport: str, process: subprocess.Popen, rng: random.Random) -> None:
        self.process, self.rng = process, rng
        self.node = Node(f"fuzz_{transport}")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.image_topic, self.depth_topic = TRANSPORTS[transport]
        self.image_kind = TRANSPORTS[transport][self.image_topic]
        topics = {**TRANSPORTS[transport], "camera_info": CameraInfo, "reference/points": PointCloud2}
        self.publishers = {topic: self.node.create_publisher(kind, topic, DEEP) for topic, kind in topics.items()}
        self.setter = self.node.create_client(SetParameters, "/perception/set_parameters")
        self.report: FrameReport | None = None
        self.node.create_subscription(Image, "/perception/disparity/image", lambda message: None, QoSProfile(depth=1))
        self.node.create_subscription(FrameReport, "/perception/report", self.keep, QoSProfile(depth=DEEP))
        self.stamp = self.images = 0
        self.sent: Counter[str] = Counter()

    def keep(self, report: FrameReport) -> None:
        self.report = report

    def run(self, messages: int) -> list[str]:
        """What is wrong."""
        kinds = self.image_kind.__name__, "CameraInfo", "PointCloud2"
        wanted = (case for case in cases(self.rng) if case.kind in kinds)
        self.until_ready()
        problems, baseline = [], 0.0
        while sum(self.sent.values()) < messages and not problems:
            for _ in range(BATCH):
                self.send(next(wanted))
            problems += self.check_parameter()
            problems += self.check_good_frame()
            if not baseline and sum(self.sent.values()) > messages / 10:
                baseline = sample(self.process.pid, 0.0).megabytes
        if not problems:
            problems += self.check_report()
            growth = sample(self.process.pid, 0.0).megabytes - baseline
            print(f"{self.image_topic}: memory +{growth:.0f} MB")
            if growth > MAX_GROWTH:
                problems.append(f"memory grew by {growth:.0f} MB, expected at most {MAX_GROWTH}")
        return [f"{self.image_topic}: {problem}" for problem in problems]

    def until_ready(self) -> None:
        """Until every input has its subscriber and a good frame is answered."""
        self.wait(lambda: all(p.get_subscription_count() for p in self.publishers.values()), allowed(120.0))
        self.wait(self.setter.service_is_ready, allowed(60.0))
        first = self.images
        while self.check_good_frame():  # the node's side of a topic may be found later than ours
            if self.images > first + 20:
                raise SystemExit("the node does not answer")
        self.images = self.report.frames_received if self.report else 0

    def send(self, case: Case) -> None:
        """A mutated message on its topic; an image or a camera_info with a good counterpart of the same stamp."""
        message, topic = case.message, "reference/points"
        self.stamp += 1
        message.header.stamp.sec, message.header.frame_id = self.stamp, "camera"
        if case.kind == "CameraInfo":
            topic = "camera_info"
        elif case.kind != "PointCloud2":
            what = message.encoding if case.kind == "Image" else message.format
            is_depth = "16UC1" in what or "32FC1" in what
            topic = self.depth_topic if is_depth else self.image_topic
        self.sent[f"{case.kind} on {topic}"] += 1
        if topic == self.image_topic:
            self.publish("camera_info", good_info(self.stamp))
        self.publish(topic, message)
        if topic == "camera_info":
            self.publish(self.image_topic, self.good_image())

    def publish(self, topic: str, message) -> None:
        self.images += topic == self.image_topic
        self.publishers[topic].publish(message)

    def good_image(self) -> Image | CompressedImage:
        if self.image_kind is Image:
            image = Image(height=HEIGHT, width=WIDTH, step=3 * WIDTH, encoding="rgb8", data=bytes(3 * WIDTH * HEIGHT))
        else:
            image = CompressedImage(format="png", data=PICTURES["png"])
        image.header.stamp.sec, image.header.frame_id = self.stamp, "camera"
        return image

    def check_good_frame(self) -> list[str]:
        """Send a good frame and wait for its report."""
        self.stamp += 1
        self.publish("camera_info", good_info(self.stamp))
        self.publish(self.image_topic, self.good_image())
        answered = self.wait(
            lambda: self.report is not None and self.report.header.stamp.sec == self.stamp, allowed(20.0)
        )
        return [] if answered else [f"expected an answer to a good frame, status {self.process.poll()}"]

    def check_parameter(self) -> list[str]:
        """Set a parameter of numbers to something that it cannot be."""
        name = self.rng.choice([name for name, item in walk() if type(item.default) in (int, float)])
        kind = self.rng.choice([ParameterType.PARAMETER_DOUBLE, ParameterType.PARAMETER_STRING])
        value = ParameterValue(type=kind, double_value=self.rng.choice(NUMBERS), string_value="x" * 1000)
        request = SetParameters.Request(parameters=[Parameter(name=name, value=value)])
        future = self.setter.call_async(request)
        if not self.wait(future.done, allowed(20.0)):
            return [f"expected an answer to a change of {name}, status {self.process.poll()}"]
        (result,) = future.result().results
        return [f"{name} was set to {value}"] if result.successful else []

    def check_report(self) -> list[str]:
        """The newest report against what was sent."""
        report = self.report
        assert report is not None
        reasons = dict(zip(report.rejection_reasons, report.rejection_counts, strict=True))
        counts = {n: getattr(report, f"frames_{n}") for n in ("processed", "dropped", "rejected", "skipped")}
        for name, count in (*sorted(self.sent.items()), *sorted(reasons.items()), *counts.items()):
            print(f"{count:>9}  {name}")
        problems = [f"{reasons[reason]} messages rejected as {reason}" for reason in UNDOCUMENTED if reason in reasons]
        if report.frames_received != sum(counts.values()):
            problems.append(f"{report.frames_received} frames received, {sum(counts.values())} accounted for")
        lost = self.images - report.frames_received
        if lost:
            print(f"{lost} of {self.images} images were lost on the way")
        return problems

    def wait(self, done, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end or self.process.poll() is not None:
                return False
            self.executor.spin_once(timeout_sec=0.05)
        return True


def good_info(stamp: int) -> CameraInfo:
    info = CameraInfo(height=HEIGHT, width=WIDTH, k=[20.0, 0.0, 7.0, 0.0, 21.0, 5.0, 0.0, 0.0, 1.0])
    info.header.stamp.sec, info.header.frame_id = stamp, "camera"
    return info


if __name__ == "__main__":
    sys.exit(main())
