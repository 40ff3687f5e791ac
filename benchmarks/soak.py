"""The node under load for a long time: python -m benchmarks.soak [--seconds 1800]

Images come at 30 Hz, a reference depth and reference points at 5 Hz. Subscribers come and go, and one that stays is
stopped (SIGSTOP) now and then, as a frozen program or a lost Wi-Fi would be. Exit status 1 if after the warm-up the
node's memory grows by more than 20 MB or the number of its threads or open files changes, or if a frame is unaccounted
for at the end: received = processed + dropped + rejected + skipped.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from benchmarks.programs import isolate, node, program
from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.ros.clouds import tensor_to_cloud
from lotus2_ros.ros.messages import tensor_to_image

RATE, REFERENCE_EVERY = 30.0, 6  # Hz; every sixth image
WIDTH, HEIGHT = 160, 120
PARAMETERS = {"model.threads": 1, "sharp.steps": 2, "model.warm_up": f"[{WIDTH}x{HEIGHT}]"}
GROWTH_MB, SPREAD = 20.0, 2  # allowed of memory, and of threads and open files
WARM_UP = 300.0  # seconds, at most a third of the run
VISIT, STOPPED_EVERY = 4.0, 3  # seconds of a subscription; every third visit the lasting subscriber is stopped
ACCOUNT = ("received", "processed", "dropped", "rejected", "skipped")
VISITED = {
    "points": PointCloud2,
    "depth/image": Image,
    "normals/color": Image,
    "sharp/depth/image": Image,
    "filtered/points": PointCloud2,
}


@dataclass(frozen=True)
class Sample:
    seconds: float
    megabytes: float
    threads: int
    files: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--lasting", action="store_true", help=argparse.SUPPRESS)  # the subscriber that is stopped
    args = parser.parse_args()
    isolate()
    rclpy.init()
    if args.lasting:
        return subscribe_for_ever()
    with ExitStack() as stack:
        process = stack.enter_context(program(*node(PARAMETERS)))
        lasting = stack.enter_context(program("-m", "benchmarks.soak", "--lasting"))
        samples, account = Soak(process, lasting).run(args.seconds)
    problems = judge(samples, account, args.seconds)
    print("\n".join(problems) or "memory, threads and open files are flat, and every frame is accounted for")
    return 1 if problems else 0


def subscribe_for_ever() -> int:
    node = Node("lasting")
    node.create_subscription(PointCloud2, "/perception/points", lambda message: None, 1)
    node.create_subscription(PointCloud2, "/perception/relative/points", lambda message: None, 1)
    with suppress(KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        rclpy.spin(node)
    return 0


class Soak:
    """A camera with two references, and the subscribers that come and go, in this process."""

    def __init__(self, node: subprocess.Popen, lasting: subprocess.Popen) -> None:
        self.process, self.lasting = node, lasting
        self.node = Node("soak")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        topics = {"image": Image, "camera_info": CameraInfo, "reference/depth": Image, "reference/points": PointCloud2}
        self.publishers = {topic: self.node.create_publisher(kind, topic, 10) for topic, kind in topics.items()}
        self.sent = 0  # images
        self.values: dict[str, str] = {}  # of the newest diagnostics
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self.keep, 10)
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(1, 3, 9, 12, generator=generator) * 255
        self.image = (
            torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear")[0].permute(1, 2, 0).byte()
        )
        self.depth = torch.linspace(6.0, 1.0, HEIGHT)[:, None].expand(HEIGHT, WIDTH).contiguous()

    def keep(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.values = {item.key: item.value for item in status.values}

    def run(self, seconds: float) -> tuple[list[Sample], dict[str, int]]:
        """Samples of the node's process, and the counts of frames when all have been answered."""
        self.wait_for("frames processed", lambda count: count > 0)
        begun, samples, visit = time.monotonic(), [], None
        visits = enumerate(itertools.cycle(VISITED.items()))
        next_image = next_visit = next_sample = begun
        while (now := time.monotonic()) < begun + seconds:
            self.check_alive()
            if now >= next_image:
                self.send()
                next_image = max(next_image + 1 / RATE, now - 1 / RATE)
            if now >= next_visit:
                visit = self.change(visit, *next(visits))
                next_visit = now + VISIT
            if now >= next_sample:
                samples.append(sample(self.process.pid, now - begun))
                next_sample = now + max(1.0, seconds / 100)
                print(samples[-1], flush=True)
            self.executor.spin_once(timeout_sec=max(0.0, min(next_image - time.monotonic(), 0.01)))
        os.kill(self.lasting.pid, signal.SIGCONT)
        self.wait_for("frames in progress", lambda count: count == 0, send=False)
        counts = {name: int(self.values[f"frames {name}"]) for name in ACCOUNT}
        return samples, counts

    def change(self, visit, number: int, visited: tuple[str, type]):
        """The next subscription in place of the last; now and then the lasting subscriber is stopped meanwhile."""
        if visit is not None:
            self.node.destroy_subscription(visit)
        os.kill(self.lasting.pid, signal.SIGSTOP if number % STOPPED_EVERY == STOPPED_EVERY - 1 else signal.SIGCONT)
        topic, kind = visited
        return self.node.create_subscription(kind, f"/perception/{topic}", lambda message: None, 1)

    def send(self) -> None:
        header = Header(frame_id="camera", stamp=self.node.get_clock().now().to_msg())
        k = [0.8 * WIDTH, 0.0, WIDTH / 2, 0.0, 0.8 * WIDTH, HEIGHT / 2, 0.0, 0.0, 1.0]
        self.sent += 1
        if self.sent % REFERENCE_EVERY == 0:
            self.publishers["reference/depth"].publish(tensor_to_image(self.depth, "32FC1", header))
        if self.sent % REFERENCE_EVERY == REFERENCE_EVERY // 2:
            self.publishers["reference/points"].publish(tensor_to_cloud(self.points(), header))
        self.publishers["camera_info"].publish(CameraInfo(header=header, width=WIDTH, height=HEIGHT, k=k))
        self.publishers["image"].publish(tensor_to_image(self.image.roll(self.sent % 7, 1), "rgb8", header))

    def points(self) -> torch.Tensor:
        """Every 64th pixel of the depth as x, y, z and a color."""
        v, u = torch.meshgrid(torch.arange(0, HEIGHT, 8.0), torch.arange(0, WIDTH, 8.0), indexing="ij")
        z = self.depth[::8, ::8]
        x, y = (u - WIDTH / 2) / (0.8 * WIDTH) * z, (v - HEIGHT / 2) / (0.8 * WIDTH) * z
        return torch.stack((x, y, z, torch.zeros_like(z)), dim=-1)

    def wait_for(self, name: str, holds, send: bool = True) -> None:
        begun = time.monotonic()
        while name not in self.values or not holds(int(self.values[name])):
            self.check_alive()
            if time.monotonic() - begun > allowed(120.0):
                raise SystemExit(f"{name} is {self.values.get(name)} after {allowed(120.0):.0f} s")
            if send:
                self.send()
            self.executor.spin_once(timeout_sec=1 / RATE)

    def check_alive(self) -> None:
        if self.process.poll() is not None:
            raise SystemExit(f"the node ended with status {self.process.returncode}")


def sample(pid: int, seconds: float) -> Sample:
    folder = Path("/proc", str(pid))
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    return Sample(
        round(seconds, 1),
        round(int(status["VmRSS"].split()[0]) / 1024, 1),
        int(status["Threads"]),
        len(list((folder / "fd").iterdir())),
    )


def judge(samples: list[Sample], account: dict[str, int], seconds: float) -> list[str]:
    """What is wrong: growth between the first and the last third after the warm-up, or frames unaccounted for."""
    steady = [s for s in samples if s.seconds >= min(WARM_UP, seconds / 3)]
    third = max(1, len(steady) // 3)
    problems = []
    for name, allowance in (("megabytes", GROWTH_MB), ("threads", SPREAD), ("files", SPREAD)):
        first, last = (median(getattr(s, name) for s in part) for part in (steady[:third], steady[-third:]))
        print(f"{name}: {first:g} after the warm-up, {last:g} at the end")
        if last - first > allowance:
            problems.append(f"{name} grew from {first:g} to {last:g}, expected at most {allowance:g} more")
    print(", ".join(f"{count} {name}" for name, count in account.items()))
    if account["received"] != sum(account[name] for name in ACCOUNT[1:]):
        problems.append("expected received = processed + dropped + rejected + skipped")
    if not account["processed"]:
        problems.append("expected processed frames, got none")
    return problems


if __name__ == "__main__":
    sys.exit(main())
