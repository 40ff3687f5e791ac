"""Several cameras on one model: topics, parameters and counters of each, and none in another's way."""

from pathlib import Path

import pytest
import torch
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from lotus2_ros.msg import FrameReport
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from lotus2_ros.ros.messages import tensor_to_image

pytestmark = pytest.mark.ros
CAMERAS = "front", "left", "right", "rear"
SIZES = dict(zip(CAMERAS, ((36, 52), (40, 52), (36, 60), (48, 48)), strict=True))


@pytest.fixture
def send(client):
    """Send a frame of a camera, whose image has a size of its own."""
    generator = torch.Generator().manual_seed(0)
    images = {
        name: torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator) for name, size in SIZES.items()
    }

    def send(camera: str, stamp: int) -> None:
        header = Header(frame_id=f"{camera}_optical")
        header.stamp.sec = stamp
        height, width = SIZES[camera]
        k = [0.8 * width, 0.0, 0.45 * width, 0.0, 0.9 * height, 0.55 * height, 0.0, 0.0, 1.0]
        client.publish(f"{camera}/camera_info", CameraInfo(header=header, k=k, width=width, height=height))
        client.publish(f"{camera}/image", tensor_to_image(images[camera], "rgb8", header))

    return send


def start_cameras(start, client, send, cameras=CAMERAS):
    """A node with these cameras, each of which has brought a result."""
    start({"cameras": f"[{', '.join(cameras)}]"})
    client.subscribe(FrameReport, *(f"{camera}/report" for camera in cameras))
    client.subscribe(Image, *(f"{camera}/disparity/image" for camera in cameras))
    stamps = iter(range(1, 10_000))

    def send_each() -> None:
        stamp = next(stamps)
        for camera in cameras:
            send(camera, stamp)

    client.repeat(send_each, lambda: all(client.received[f"{camera}/disparity/image"] for camera in cameras), "results")


def test_each_camera_has_its_own_topics_frame_and_size(start, client, send):
    statuses = {}
    client.node.create_subscription(
        DiagnosticArray, "/diagnostics", lambda a: statuses.update({s.name: s for s in a.status}), 10
    )
    start_cameras(start, client, send)
    for camera in CAMERAS:
        image = client.received[f"{camera}/disparity/image"][0]
        assert (image.header.frame_id, (image.height, image.width)) == (f"{camera}_optical", SIZES[camera])
    names = {f"/perception: {camera}" for camera in CAMERAS}
    client.until(lambda: all(name in statuses and statuses[name].hardware_id for name in names), "diagnostics")
    assert names == {name for name in statuses if name.startswith("/perception")}
    assert {status.hardware_id for status in statuses.values()} == {f"{camera}_optical" for camera in CAMERAS}
    assert all(map(is_aggregated, names))
    a_parameter_of_front_is_its_own(client, send)


def is_aggregated(name: str) -> bool:
    """Whether the example for diagnostic_aggregator takes a status in."""
    example = yaml.safe_load((Path(__file__).parents[2] / "config" / "diagnostics_aggregator.yaml").read_text())
    return any(part in name for part in example["analyzers"]["ros__parameters"]["perception"]["contains"])


def a_parameter_of_front_is_its_own(client, send):
    client.subscribe(PointCloud2, *(f"{camera}/relative/points" for camera in CAMERAS[:2]))
    request = SetParameters.Request(parameters=[Parameter("front.cloud.stride", value=2).to_parameter_msg()])
    assert client.call(SetParameters, "set_parameters", request).results[0].successful
    front, left = (client.received[f"{camera}/relative/points"] for camera in CAMERAS[:2])
    stamps = iter(range(10_000, 20_000))

    def send_both() -> None:
        stamp = next(stamps)
        send("front", stamp)
        send("left", stamp)

    # Frames from before the change may still be under way.
    client.repeat(send_both, lambda: all(c and c[-1].header.stamp.sec >= 10_000 for c in (front, left)), "clouds")
    assert [(cloud.height, cloud.width) for cloud in (front[-1], left[-1])] == [(18, 26), SIZES["left"]]


@pytest.mark.parametrize("cameras", [("front", "rear"), CAMERAS], ids=["two", "four"])
def test_turns_are_equal_and_rubbish_stays_with_its_camera(start, client, send, cameras):
    start_cameras(start, client, send, cameras)
    client.until(lambda: all(client.received[f"{camera}/report"] for camera in cameras), "reports")
    before = {camera: client.received[f"{camera}/report"][-1].frames_processed for camera in cameras}
    for number in range(60):  # without a pause, so that frames of all wait
        for camera in cameras:
            send(camera, 20_000 + number)
        broken = Image(header=Header(frame_id="rear_optical"), height=7, width=9, encoding="rgb8", step=5)
        broken.header.stamp.sec = 20_000 + number
        client.publish("rear/camera_info", CameraInfo(header=broken.header, width=9, height=7))
        client.publish("rear/image", broken)
        client.executor.spin_once(timeout_sec=0)

    def reports(camera: str) -> list[FrameReport]:
        return client.received[f"{camera}/report"]

    client.repeat(
        lambda: [send(camera, 30_000) for camera in cameras],
        lambda: all(any(r.header.stamp.sec == 30_000 for r in reports(camera)) for camera in cameras),
        "frames after it",
    )
    done = {camera: reports(camera)[-1].frames_processed - before[camera] for camera in cameras}
    assert all(reports(camera)[-1].frames_rejected == 0 for camera in cameras[:-1])
    assert max(done[camera] for camera in cameras[:-1]) <= 1.1 * min(done[camera] for camera in cameras[:-1]) + 2
    last = reports("front")[-1]
    assert last.frames_received >= last.frames_processed + last.frames_dropped
