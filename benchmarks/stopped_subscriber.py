"""Rate and latency of the node while one of two reliable subscribers is stopped (SIGSTOP).

    python -m benchmarks.stopped_subscriber --seconds 30

Once with config/fastdds.xml in all processes and once with Fast DDS's defaults. The rate is that of the results at the
subscriber that goes on. Latencies are those of the node's reports, from the arrival of an image.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from statistics import quantiles

import rclpy
import torch
from lotus2_ros.msg import FrameReport
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from benchmarks.programs import isolate, node, program
from lotus2_ros.config.installed import FASTDDS_PROFILE, fastdds_profile
from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.ros.messages import tensor_to_image

WIDTH, HEIGHT = 640, 480
TOPICS = {
    "disparity/image": Image,
    "normals/image": Image,
    "relative/depth/image": Image,
    "relative/points": PointCloud2,
}
SETTLE = 5.0  # seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measurement")
    parser.add_argument("--rate", type=float, default=5.0, help="images per second")
    parser.add_argument("--profile", help=argparse.SUPPRESS)  # of this process, which another one started
    parser.add_argument("--stopped", action="store_true", help=argparse.SUPPRESS)  # the subscriber that is stopped
    args = parser.parse_args()
    if args.stopped:
        return subscribe_for_ever()
    if args.profile is not None:
        return measure(args.seconds, args.rate)
    isolate()
    for name, profile in {"config/fastdds.xml": str(fastdds_profile()), "defaults": ""}.items():
        print(f"{name}:", flush=True)
        command = [sys.executable, "-m", "benchmarks.stopped_subscriber", *sys.argv[1:], "--profile", profile]
        subprocess.run(command, env=os.environ | {FASTDDS_PROFILE: profile}, check=True)
    return 0


def subscribe(node: Node, keep) -> None:
    for topic, kind in TOPICS.items():
        node.create_subscription(kind, f"/perception/{topic}", keep, 1)


def subscribe_for_ever() -> int:
    rclpy.init()
    node = Node("stopped")
    subscribe(node, lambda message: None)
    with suppress(KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        rclpy.spin(node)
    return 0


def measure(seconds: float, rate: float) -> int:
    rclpy.init()
    values = {"sharp.enabled": "false", "model.warm_up": f"[{WIDTH}x{HEIGHT}]", "model.process_resolution": 64}
    with (
        program(*node(values)),
        program("-m", "benchmarks.stopped_subscriber", "--stopped") as other,
    ):
        camera = Camera(rate)
        camera.send_until(lambda: camera.everybody_is_there and camera.reports, allowed(120.0))
        for state, number in (("running", signal.SIGCONT), ("stopped", signal.SIGSTOP)):
            other.send_signal(number)
            camera.send_until(lambda: False, SETTLE)
            camera.results.clear()
            camera.reports.clear()
            camera.send_until(lambda: False, seconds)
            print(f"  {state}: {camera.summary(seconds)}", flush=True)
    return 0


class Camera:
    """Sends images and keeps what comes of them."""

    def __init__(self, rate: float) -> None:
        self.node = Node("camera")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.period, self.next = 1 / rate, time.monotonic()
        self.results: list[object] = []
        self.reports: list[FrameReport] = []
        subscribe(self.node, self.results.append)
        self.node.create_subscription(FrameReport, "/perception/report", self.reports.append, 10)
        self.info, self.image = (
            self.node.create_publisher(k, t, 1) for k, t in ((CameraInfo, "camera_info"), (Image, "image"))
        )
        self.pixels = torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8)

    @property
    def everybody_is_there(self) -> bool:
        return all(self.node.count_subscribers(f"/perception/{topic}") == 2 for topic in TOPICS)

    def send_until(self, done, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end:
            if time.monotonic() >= self.next:
                self.next = max(self.next + self.period, time.monotonic())
                self.send()
            self.executor.spin_once(timeout_sec=max(0.0, self.next - time.monotonic()))

    def send(self) -> None:
        header = Header(frame_id="camera", stamp=self.node.get_clock().now().to_msg())
        k = [500.0, 0.0, WIDTH / 2, 0.0, 500.0, HEIGHT / 2, 0.0, 0.0, 1.0]
        self.info.publish(CameraInfo(header=header, width=WIDTH, height=HEIGHT, k=k))
        self.image.publish(tensor_to_image(self.pixels, "rgb8", header))

    def summary(self, seconds: float) -> str:
        stages = [dict(zip(report.latency_names, report.latency_ms, strict=True)) for report in self.reports]
        if len(stages) < 2:
            return f"too busy to say, {len(stages)} results"
        parts = [f"{len(self.results) / len(TOPICS) / seconds:.2f} results per second"]
        for name in ("publish", "total"):
            values = [latency[name] for latency in stages]
            cuts = quantiles(values, n=100)
            parts.append(f"{name} {cuts[49]:.0f} ms, 99th percentile {cuts[98]:.0f} ms")
        return "; ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
