"""References that a running node rejects, and points with a transform, over DDS."""

from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from lotus2_ros.msg import FrameReport
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from ros_messages import cloud_of, header_of
from sensor_msgs.msg import CompressedImage, Image, PointCloud2

from lotus2_ros.config import Config
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.loading import load_estimator
from lotus2_ros.ros.messages import tensor_to_image

pytestmark = pytest.mark.ros
HEIGHT, WIDTH = 36, 52


def test_a_node_rejects_bad_references_and_is_metric_by_points(start, client, random_bundle, generator):
    image = torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=generator)
    disparity = load_estimator(Config().updated({"model.path": str(random_bundle)})).predict(image).disparity
    depth = 1 / (0.5 * disparity + 0.2)
    camera = Camera.from_intrinsics(WIDTH, HEIGHT, 0.8 * WIDTH, 0.9 * HEIGHT, 0.45 * WIDTH, 0.55 * HEIGHT)
    # The camera half a meter below a lidar of body axes: x forward, y left, z up.
    x, y, z = camera.unproject(depth).reshape(-1, 3)[torch.randperm(HEIGHT * WIDTH, generator=generator)[:500]].T
    points = torch.stack((z, -x, -y - 0.5), dim=-1).contiguous()
    unseen = torch.full((HEIGHT, WIDTH), torch.nan)

    def send_depth(depth, stamp, frame="camera_optical", encoding="32FC1"):
        client.publish("reference/depth", tensor_to_image(depth, encoding, header_of(stamp, frame)))

    def send_points(stamp):
        client.publish("reference/points", cloud_of(points, header_of(stamp, "lidar")))

    node = start({"sharp.enabled": False})
    client.subscribe(FrameReport, "report")
    client.subscribe(Image, "depth/image", "disparity/image")
    client.repeat(  # so that the node hears both topics
        lambda: [send_depth(image, 0, encoding="rgb8"), client.publish("reference/points", PointCloud2())],
        lambda: all(f"[reference_{reason}]" in node.output() for reason in ("encoding", "fields")),
        "warnings",
    )
    before = counts_of(client.warm_up(image, "disparity/image"))
    bad = {
        "reference_empty": lambda stamp: send_depth(unseen, stamp),
        "reference_frame": lambda stamp: send_depth(depth, stamp, "another_camera"),
        "reference_future": lambda stamp: send_depth(depth, stamp + 60),
        "reference_transform": send_points,
        "reference_data": lambda stamp: client.publish("reference/points", outside_of_memory(points)),
    }
    for number, (reason, send) in enumerate(bad.items(), start=10):
        send(number)
        client.repeat(
            lambda number=number: client.send_frame(image, number), lambda r=reason: f"[{r}]" in node.output(), reason
        )
    client.send_and_wait(image, 20)
    report = client.received["report"][-1]
    after = counts_of(report)
    assert {reason: after[reason] - before[reason] for reason in bad} == dict.fromkeys(bad, 1)
    assert not report.metric and not client.received["depth/image"] and "scale.points_transform" in node.output()

    turned = Parameter("scale.points_transform", value="0 -0.5 0 0.5 -0.5 0.5 0.5").to_parameter_msg()
    answer = client.call(SetParameters, "set_parameters", SetParameters.Request(parameters=[turned]))
    assert answer.results[0].successful
    send_points(30.25)
    client.repeat(lambda: client.send_frame(image, 30), lambda: client.received["report"][-1].metric, "metric report")
    report = client.received["report"][-1]
    assert report.metric and report.scale_source == "reference_points"
    assert (report.scale, report.shift) == (pytest.approx(0.5, rel=0.05), pytest.approx(0.2, rel=0.05))
    assert counts_of(report) == after


@pytest.mark.parametrize("transport", ["compressedDepth", "compressed"])
def test_compressed_depth_gives_meters(start, client, random_bundle, generator, transport):
    image = torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=generator)
    disparity = load_estimator(Config().updated({"model.path": str(random_bundle)})).predict(image).disparity
    millimeters = (1000 / (0.5 * disparity + 0.2)).numpy().round().astype(np.uint16)
    png = cv2.imencode(".png", millimeters)[1].tobytes()
    data, format = (bytes(12) + png, "16UC1; compressedDepth png") if transport == "compressedDepth" else (png, "png")
    start({"sharp.enabled": False, "input.reference_transport": transport})
    client.subscribe(FrameReport, "report")
    client.subscribe(Image, "depth/image")

    def send() -> None:
        reference = CompressedImage(header=header_of(5.25, "camera_optical"), format=format, data=data)
        client.publish(f"reference/depth/{transport}", reference)
        client.send_frame(image, 5)

    def metric_report() -> FrameReport | None:  # it follows the depth image
        return next((report for report in client.received["report"] if report.metric), None)

    client.repeat(send, lambda: client.received["depth/image"] and metric_report(), "metric depth and its report")
    report = metric_report()
    assert report.scale_source == "reference_depth"
    assert (report.scale, report.shift) == (pytest.approx(0.5, rel=0.01), pytest.approx(0.2, rel=0.01))


def outside_of_memory(points: torch.Tensor) -> PointCloud2:
    """A cloud whose last field lies 2 GB behind its data: as a signed offset it would be before them."""
    cloud = cloud_of(points, header_of(14, "lidar"))
    cloud.fields[2].offset = 2**31 - 4
    return cloud


def counts_of(report: FrameReport) -> Counter[str]:
    return Counter(dict(zip(report.rejection_reasons, report.rejection_counts, strict=True)))
