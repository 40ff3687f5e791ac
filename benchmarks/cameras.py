"""Several cameras on one model beside a single one: python -m benchmarks.cameras [--seconds 20] [--cameras 4]

Two nodes run one after the other, with one camera and with several, a model thread of one core and no sharpener. Each
camera sends 640 x 480 at `--rate`, 10 Hz, which is more than a core keeps up with; a faster machine needs a higher one.
Printed and written to cameras.md and cameras.json: results per second in all, the smallest and the largest share of a
camera, the median and the 95th percentile of the time from image to result, and CPU time and memory of the node. Rates
and latencies mean something on an idle machine only. About two minutes.
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

from benchmarks.aims import Aim, conclude
from benchmarks.programs import cpu_seconds, isolate, node, program
from benchmarks.timing import machine
from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.ros.messages import tensor_to_image

WIDTH, HEIGHT = 640, 480
HEADER = (
    "cameras", "results/s", "least share", "most", "p50, ms", "p95, ms", "CPU per result, ms", "resident, MB",
)  # fmt: skip
WARM_UP = 5.0  # seconds


@dataclass(frozen=True)
class Run:
    """What was measured of one node: results of each camera, seconds, latencies in ms, CPU seconds, megabytes."""

    results: dict[str, int]
    seconds: float
    latencies: list[float]
    cpu: float
    megabytes: float

    @property
    def rate(self) -> float:
        return self.count / self.seconds

    @property
    def count(self) -> int:
        return sum(self.results.values())

    @property
    def p95(self) -> float:
        return quantiles(self.latencies, n=20)[18]

    def row(self) -> tuple[object, ...]:
        shares = [count / self.count for count in self.results.values()]
        return (
            len(self.results), self.rate, min(shares), max(shares), median(self.latencies), self.p95,
            1e3 * self.cpu / self.count, self.megabytes,
        )  # fmt: skip


def aims(one: Run, several: Run) -> list[Aim]:
    count, frame = len(several.results), 1e3 / several.rate
    shares = [count * each / several.count for each in several.results.values()]
    return [
        Aim("memory, of one camera's", 1.1, several.megabytes / one.megabytes),
        Aim("results per second in all, of one camera's", 0.9, several.rate / one.rate, least=True),
        Aim(f"p95 of the latency, ms: {count} frames", count * frame, several.p95),
        Aim("smallest share of a camera, of an equal one", 0.9, min(shares), least=True),
    ]


class Load:
    """Sends images of some cameras and counts the reports."""

    def __init__(self, cameras: list[str], rate: float) -> None:
        self.rate = rate
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
                next_image += 1 / self.rate
            self.executor.spin_once(timeout_sec=max(0.0, next_image - time.monotonic()))


def measure(cameras: list[str], seconds: float, rate: float) -> Run:
    load = Load(cameras, rate)
    given = {"cameras": f"[{', '.join(cameras)}]", "model.threads": 1, "sharp.enabled": "false"}
    with program(*node(given)) as process:
        begun = time.monotonic()
        while not all(load.reports[camera] for camera in cameras):
            if time.monotonic() > begun + allowed(120.0) or process.poll() is not None:
                raise SystemExit("benchmarks.cameras: expected results of every camera, got none")
            load.run(0.5)
        load.run(WARM_UP)
        for reports in load.reports.values():
            reports.clear()
        before = cpu_seconds(process.pid)
        load.run(seconds)
        cpu = cpu_seconds(process.pid) - before
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    latencies = [
        milliseconds
        for reports in load.reports.values()
        for report in reports
        for name, milliseconds in zip(report.latency_names, report.latency_ms, strict=True)
        if name == "total"
    ]
    results = {camera: len(load.reports[camera]) for camera in cameras}
    load.executor.shutdown()
    load.node.destroy_node()
    return Run(results, seconds, latencies, cpu, resident / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--rate", type=float, default=10.0, help="images per second of each camera")
    parser.add_argument("--output", type=Path, default=Path("out/cameras"), help="cameras.md and cameras.json")
    args = parser.parse_args()
    isolate()
    rclpy.init()
    names = [f"camera{number}" for number in range(args.cameras)]
    one, several = (measure(some, args.seconds, args.rate) for some in (names[:1], names))
    title = f"{machine(torch.device('cpu'))}, load average {os.getloadavg()[0]:.1f}, bundled model, {args.seconds:g} s"
    conclude("cameras", title, HEADER, [one.row(), several.row()], aims(one, several), args.output)


if __name__ == "__main__":
    main()
