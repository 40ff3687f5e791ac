"""The node subscribes only while somebody subscribes to it, and accounts for every frame it received."""

import pytest
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lotus2_ros.msg import FrameReport
from sensor_msgs.msg import Image

pytestmark = pytest.mark.ros
IMAGE = torch.full((36, 52, 3), 128, dtype=torch.uint8)
OUTCOMES = "processed", "dropped", "rejected", "skipped"


def test_no_image_is_taken_while_nobody_subscribes(start, client):
    start({"sharp.enabled": False})
    diagnostics = []
    client.node.create_subscription(DiagnosticArray, "/diagnostics", diagnostics.append, 10)

    def last() -> DiagnosticStatus:
        return diagnostics[-1].status[0]

    client.until(lambda: diagnostics and last().message == "idle: nobody subscribes to a result", "idle node")
    assert last().level == DiagnosticStatus.OK and client.node.count_subscribers("/image") == 0
    subscription = client.node.create_subscription(
        Image, "/perception/disparity/image", client.received["disparity/image"].append, 1
    )
    client.until(lambda: client.node.count_subscribers("/image") == 1, "subscription of the node")
    client.repeat(lambda: client.send_frame(IMAGE, 1), lambda: client.received["disparity/image"], "disparity")
    # The node runs from the subscription on, and knows the camera from the first image on.
    client.until(lambda: last().message == "running" and last().hardware_id == "camera_optical", "running node")
    client.node.destroy_subscription(subscription)
    client.until(lambda: client.node.count_subscribers("/image") == 0, "end of the subscription")
    client.until(lambda: last().message.startswith("idle"), "idle node")


def test_every_received_frame_is_accounted_for(start, client):
    node = start({"sharp.enabled": False})
    client.subscribe(Image, "disparity/image")
    client.subscribe(FrameReport, "report")
    diagnostics = []
    client.node.create_subscription(DiagnosticArray, "/diagnostics", diagnostics.append, 10)
    client.warm_up(IMAGE, "disparity/image")
    uncalibrated = "[camera_info_uncalibrated]"
    client.repeat(lambda: client.send_frame(IMAGE, 2, k=[0.0] * 9), lambda: uncalibrated in node.output(), uncalibrated)
    for stamp in range(3, 60):
        client.send_frame(IMAGE, stamp)
    client.send_and_wait(IMAGE, 100)
    received = client.received["report"][-1].frames_received
    diagnostics.clear()

    def values() -> dict[str, str]:
        return {value.key: value.value for value in diagnostics[-1].status[0].values}

    # Frames that were sent before the last one may come after it.
    client.until(lambda: diagnostics and values()["frames in progress"] == "0", "diagnostics with no frame in progress")
    found = values()
    account = {name: int(found[f"frames {name}"]) for name in OUTCOMES}
    assert int(found["frames received"]) >= received and account["rejected"] > 0
    assert int(found["frames received"]) == sum(account.values())
