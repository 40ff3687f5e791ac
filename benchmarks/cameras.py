"""Several cameras on one model beside a single one: python -m benchmarks.cameras [--seconds 20] [--cameras 4]

Two nodes run one after the other, with one camera and with several. Each camera sends 640 x 480 at 30 Hz, which is more
than a CPU keeps up with. Printed: results per second in all, the smallest and the largest share of a camera, the median
and the 95th percentile of the time from image to result, and the resident memory of the node.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import rclpy
import torch
from lotus2_ros.msg import FrameReport
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from benchmarks.soak import program
from lotus2_ros.config.installed import FASTDDS_PROFILE, fastdds_profile
from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.ros.messages import tensor_to_image

WIDTH, HEIGHT, RATE = 640, 480, 30.0
WARM_UP = 5.0  # seconds


@dataclass(frozen=True)
class Run:
    """What was measured of one node: results of each camera, seconds, latencies in seconds, resident megabytes."""

    results: dict[str, int]
    seconds: float
    latencies: list[float]
    megabytes: float

    @property
    def rate(self) -> float:
        return sum(self.results.values()) / self.seconds

    def row(self) -> str:
        shares = [count / max(1, sum(self.results.values())) for count in self.results.values()]
        p95 = quantiles(self.latencies, n=20)[18]
        return (
            f"| {len(self.results)} | {self.rate:.2f} | {min(shares):.2f} to {max(shares):.2f} "
            f"| {1e3 * median(self.latencies):.0f} | {1e3 * p95:.0f} | {self.megabytes:.0f} |"
        )


class Load:
    """Sends images of some cameras and counts the reports."""

    def __init__(self, cameras: list[str]) -> None:
        self.node = Node("load")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.reports: dict[str, list[FrameReport]] = defaultdict(list)
        self.publishers = []
        for camera in cameras:
            self.publishers.append(
                (self.node.create_publisher(CameraInfo, f"{camera}/camera_info", 1),
                 self.node.create_publisher(Image, f"{camera}/image", 1))
            )  # fmt: skip
            self.node.create_subscription(Image, f"/perception/{camera}/disparity/image", lambda message: None, 1)
            self.node.create_subscription(FrameReport, f"/perception/{camera}/report", self.reports[camera].append, 50)
        self.pixels = torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8)

    def send(self) -> None:
        header = Header(frame_id="camera", stamp=self.node.get_clock().now().to_msg())
        info = CameraInfo(header=header, width=WIDTH, height=HEIGHT)
        info.k = [500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0]
        image = tensor_to_image(self.pixels, "rgb8", header)
        for infos, images in self.publishers:
            infos.publish(info)
            images.publish(image)

    def run(self, seconds: float) -> None:
        next_image = begun = time.monotonic()
        while (now := time.monotonic()) < begun + seconds:
            if now >= next_image:
                self.send()
                next_image += 1 / RATE
            self.executor.spin_once(timeout_sec=max(0.0, next_image - time.monotonic()))


def measure(cameras: list[str], seconds: float) -> Run:
    load = Load(cameras)
    given = ("-p", f"cameras:=[{', '.join(cameras)}]", "-p", "model.threads:=1", "-p", "sharp.enabled:=false")
    with program("-m", "lotus2_ros.ros.node", "--ros-args", *given) as process:
        begun = time.monotonic()
        while not all(load.reports[camera] for camera in cameras):
            if time.monotonic() > begun + allowed(120.0) or process.poll() is not None:
                raise SystemExit("benchmarks.cameras: expected results of every camera, got none")
            load.run(0.5)
        load.run(WARM_UP)
        for reports in load.reports.values():
            reports.clear()
        load.run(seconds)
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    latencies = [
        milliseconds / 1e3
        for reports in load.reports.values()
        for report in reports
        for name, milliseconds in zip(report.latency_names, report.latency_ms, strict=True)
        if name == "total"
    ]
    results = {camera: len(load.reports[camera]) for camera in cameras}
    load.executor.shutdown()
    load.node.destroy_node()
    return Run(results, seconds, latencies, resident / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--cameras", type=int, default=4)
    args = parser.parse_args()
    os.environ.setdefault(FASTDDS_PROFILE, str(fastdds_profile()))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 101))
    rclpy.init()
    names = [f"camera{number}" for number in range(args.cameras)]
    one, several = measure(names[:1], args.seconds), measure(names, args.seconds)
    print("| cameras | results per second | share of a camera | latency p50, ms | p95, ms | resident, MB |")
    print("|---|---|---|---|---|---|")
    print(one.row(), several.row(), sep="\n")
    print(f"rate {several.rate / one.rate:.2f} x, memory {several.megabytes / one.megabytes:.2f} x that of one camera")


if __name__ == "__main__":
    main()
