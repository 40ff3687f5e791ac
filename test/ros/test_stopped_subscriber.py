"""A subscriber that is stopped (SIGSTOP, a debugger, a lost network) does not slow the frames of the others."""

import os
import signal
import statistics
import subprocess
import sys

import pytest
import torch
from lotus2_ros.msg import FrameReport
from sensor_msgs.msg import Image, PointCloud2

from test.ros.conftest import WARM

pytestmark = pytest.mark.ros
IMAGE = torch.randint(0, 256, (480, 640, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
TOPICS = ["disparity/image", "normals/image", "relative/depth/image"]
ROUNDS = 12  # more than the messages that fill a shared memory segment

SUBSCRIBER = """
import sys
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image, PointCloud2
rclpy.init()
node = Node("stopped")
for topic in sys.argv[1:]:
    node.create_subscription(Image, f"/perception/{topic}", lambda message: print("got", flush=True), 1)
node.create_subscription(PointCloud2, "/perception/relative/points", lambda message: None, 1)
rclpy.spin(node)
"""


def publish_ms(report: FrameReport) -> float:
    return dict(zip(report.latency_names, report.latency_ms, strict=True))["publish"]


@pytest.mark.slow
def test_a_stopped_subscriber_does_not_slow_publishing(start, client, domain, tmp_path):
    start({"sharp.enabled": False, "model.warm_up": "[640x480]", "scale.relative_shift": 0.25})
    client.subscribe(Image, *TOPICS)
    client.subscribe(PointCloud2, "relative/points")
    client.subscribe(FrameReport, "report")
    log = tmp_path / "subscriber.log"
    command = [sys.executable, "-c", SUBSCRIBER, *TOPICS]
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain)}
    with log.open("w") as output:
        subscriber = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        client.warm_up(IMAGE, *TOPICS, "relative/points")
        # A subscriber that is in the graph may still miss a message; it takes part once it has got one.
        client.repeat(lambda: client.send_frame(IMAGE, 1), lambda: "got" in log.read_text(), "second subscriber")
        client.send_and_wait(IMAGE, WARM)
        client.received["report"].clear()
        stamps = iter(range(WARM + 1, 1000))
        for _ in range(ROUNDS):
            client.send_and_wait(IMAGE, next(stamps))
        before = [publish_ms(report) for report in client.received["report"]]
        subscriber.send_signal(signal.SIGSTOP)
        client.received["report"].clear()
        for _ in range(2 * ROUNDS):
            client.send_and_wait(IMAGE, next(stamps))
        after = [publish_ms(report) for report in client.received["report"]]
    finally:
        subscriber.kill()
    # Blocked, each publish call takes as much as the 4 of a frame do else; the median does not see a busy machine.
    assert statistics.median(after[ROUNDS:]) < 2 * statistics.median(before) + 10
    assert len(client.received["disparity/image"]) > 2.5 * ROUNDS  # the other subscriber gets them
