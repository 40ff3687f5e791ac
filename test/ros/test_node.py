"""The running node, seen from another process."""

import math

import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lotus2_ros.msg import FrameReport
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header

from lotus2_ros.config import Config
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.loading import load_estimator
from lotus2_ros.ros.messages import tensor_to_image

pytestmark = pytest.mark.ros
HEIGHT, WIDTH = 36, 52
IMAGE = torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def disparity(random_bundle) -> torch.Tensor:
    """What the random model says of IMAGE, computed in this process."""
    return load_estimator(Config().updated({"model.path": str(random_bundle)})).predict(IMAGE).disparity


@pytest.fixture(scope="session")
def depth(disparity) -> torch.Tensor:
    """A truth to which that disparity is aligned by scale 0.5 and shift 0.2: the node has to find those."""
    return 1 / (0.5 * disparity + 0.2)


def values(message: Image) -> np.ndarray:
    shape = (message.height, message.width) + ((3,) if message.encoding in ("32FC3", "rgb8") else ())
    return np.frombuffer(message.data, np.uint8 if message.encoding == "rgb8" else np.float32).reshape(shape)


def header_of(stamp):
    header = Header(frame_id="camera_optical")
    header.stamp.sec = stamp
    return header


def test_eight_topics_come_back_metric_with_stamp_and_frame(start, client, bundle_with_uncertainty, disparity, depth):
    start({"cloud.edge_threshold": 0.0, "model.path": str(bundle_with_uncertainty)})
    client.subscribe(Image, "depth/image", "disparity/image", "normals/image", "normals/color", "relative/depth/image")
    client.subscribe(Image, "uncertainty/depth", "uncertainty/image")
    client.subscribe(CameraInfo, "depth/camera_info")
    client.subscribe(PointCloud2, "points")
    client.subscribe(FrameReport, "report")
    sparse = torch.full((HEIGHT, WIDTH), math.nan)
    sparse[::3, ::2] = depth[::3, ::2]
    topics = "depth/image", "depth/camera_info", "points", "disparity/image", "normals/image", "normals/color"
    topics = (*topics, "uncertainty/depth", "uncertainty/image")
    client.warm_up(IMAGE, *topics, depth=sparse)
    header = client.send_and_wait(IMAGE, 2, sparse)
    client.until(lambda: all(client.received[topic] for topic in topics), "eight topics")
    got = {topic: client.received[topic][0] for topic in topics}
    assert all(message.header == header for message in got.values())
    np.testing.assert_allclose(values(got["disparity/image"]), disparity, atol=1e-5)
    np.testing.assert_allclose(values(got["depth/image"]), depth, rtol=1e-3)
    assert got["depth/image"].encoding == "32FC1" and got["normals/image"].encoding == "32FC3"
    np.testing.assert_allclose(np.linalg.norm(values(got["normals/image"]), axis=-1), 1, atol=1e-5)
    share = values(got["uncertainty/depth"]) / values(got["depth/image"])
    assert got["uncertainty/depth"].encoding == "32FC1" and ((share > 0) & (share < 0.3)).all()
    deviation = values(got["uncertainty/image"])
    assert got["uncertainty/image"].encoding == "32FC1" and (deviation > 0).all() and deviation.std() > 0
    info = got["depth/camera_info"]
    cloud = np.frombuffer(got["points"].data, np.float32).reshape(HEIGHT, WIDTH, 4)
    camera = Camera(WIDTH, HEIGHT, torch.tensor(np.asarray(info.k)).reshape(3, 3))
    np.testing.assert_allclose(cloud[..., :3], camera.unproject(depth), rtol=1e-3, atol=1e-4)
    packed = np.ascontiguousarray(cloud[..., 3]).view(np.uint32)
    assert np.array_equal(packed >> 16, IMAGE[..., 0]) and np.array_equal(packed & 255, IMAGE[..., 2])
    report = client.received["report"][0]
    assert report.uncertainty == pytest.approx(float(deviation.mean()), rel=1e-4)
    assert report.metric and report.scale_source == "reference_depth" and report.scale_age == 0
    assert (report.scale, report.shift) == (pytest.approx(0.5, rel=1e-3), pytest.approx(0.2, rel=1e-3))
    assert report.sigma == pytest.approx(np.median(share), rel=0.2) and report.reference_error < 1e-3
    assert set(report.latency_names) >= {"wait", "encode", "core", "decode", "align", "publish", "total"}
    assert not client.received["relative/depth/image"]


def test_without_a_reference_nothing_looks_metric(start, client, disparity):
    start({"scale.relative_shift": 0.25})
    client.subscribe(Image, "depth/image", "relative/depth/image")
    client.subscribe(PointCloud2, "points", "relative/points")
    client.subscribe(FrameReport, "report")
    client.warm_up(IMAGE, "relative/depth/image", "relative/points")
    client.send_and_wait(IMAGE, 2)
    relative = "relative/depth/image", "relative/points"
    client.until(lambda: all(client.received[topic] for topic in relative), "relative depth and points")
    assert not client.received["depth/image"] and not client.received["points"]
    expected = 1.25 / (disparity + 0.25)
    np.testing.assert_allclose(values(client.received["relative/depth/image"][0]), expected, rtol=1e-4)
    assert client.received["report"][0].scale_source == "none" and not client.received["report"][0].metric


def test_bad_input_is_dropped_counted_and_the_node_goes_on(start, client):
    node = start({"node.warn_period": 3600.0, "sharp.enabled": False})
    client.subscribe(Image, "disparity/image")
    client.subscribe(FrameReport, "report")
    diagnostics = []
    client.node.create_subscription(DiagnosticArray, "/diagnostics", diagnostics.append, 10)
    client.repeat(  # so that the node hears references too
        lambda: client.publish("reference/depth", tensor_to_image(torch.zeros(2, 2), "32FC1", header_of(0))),
        lambda: "[reference_empty]" in node.output(),
        "warning of an empty reference",
    )
    before = client.warm_up(IMAGE, "disparity/image")

    def broken(stamp, **changes):
        image = tensor_to_image(IMAGE, "rgb8", header_of(stamp))
        for name, value in changes.items():
            setattr(image, name, value)
        info = CameraInfo(header=image.header, width=WIDTH, height=HEIGHT, k=[40.0, 0, 20, 0, 40, 15, 0, 0, 1])
        client.publish("camera_info", info)
        client.publish("image", image)

    wrong = {
        "encoding": lambda: broken(11, encoding="rgb565"),
        "image_data": lambda: broken(12, data=bytes(10)),
        "image_size": lambda: broken(13, width=0),
        "image_step": lambda: broken(14, step=3),
        "camera_info_uncalibrated": lambda: client.send_frame(IMAGE, 15, k=[0.0] * 9),
        "camera_info_size": lambda: client.send_frame(IMAGE, 16, width=WIDTH + 1),
        "reference_encoding": lambda: client.publish("reference/depth", tensor_to_image(IMAGE, "rgb8", header_of(17))),
    }
    for number, (reason, send) in enumerate(wrong.items()):
        send()
        client.until(lambda reason=reason: f"[{reason}]" in node.output(), f"warning of {reason}")
        client.send_and_wait(IMAGE, 100 + number)
    report = client.received["report"][-1]
    counts = dict(zip(report.rejection_reasons, report.rejection_counts, strict=True))
    earlier = dict(zip(before.rejection_reasons, before.rejection_counts, strict=True))
    assert {reason: counts[reason] - earlier.get(reason, 0) for reason in wrong} == dict.fromkeys(wrong, 1)
    assert report.frames_rejected - before.frames_rejected == 6
    assert report.frames_processed - before.frames_processed == len(wrong)
    assert "got 'rgb565'" in node.output()

    def tells_of_it(status: DiagnosticStatus) -> bool:
        values = {value.key: value.value for value in status.values}
        return status.level == DiagnosticStatus.WARN and values.get("rejected: encoding") == "1"

    client.until(lambda: any(tells_of_it(array.status[0]) for array in diagnostics), "a warning in diagnostics")


def test_warnings_are_throttled(start, client):
    node = start({"node.warn_period": 3600.0})
    client.subscribe(Image, "disparity/image")
    client.subscribe(FrameReport, "report")
    before = client.warm_up(IMAGE, "disparity/image")
    for stamp in range(2, 7):
        client.send_frame(IMAGE, stamp, k=[0.0] * 9)
    client.until(lambda: "[camera_info_uncalibrated]" in node.output(), "warning")
    client.send_and_wait(IMAGE, 7)
    report = client.received["report"][0]
    assert 1 <= report.frames_rejected - before.frames_rejected <= 5
    assert node.output().count("[camera_info_uncalibrated]") == 1


def test_images_without_camera_info_go_by_field_of_view(start, client):
    start({"input.fov": 90.0, "cloud.edge_threshold": 0.0})
    client.subscribe(PointCloud2, "relative/points")
    image = tensor_to_image(IMAGE, "rgb8", header_of(1))
    client.repeat(lambda: client.publish("image", image), lambda: client.received["relative/points"], "relative points")
    cloud = np.frombuffer(client.received["relative/points"][0].data, np.float32).reshape(HEIGHT, WIDTH, 4)
    np.testing.assert_allclose(cloud[:, 0, 0] / cloud[:, 0, 2], -(WIDTH - 1) / WIDTH, rtol=1e-5)


def test_images_without_camera_info_are_rejected_without_field_of_view(start, client):
    node = start()
    client.subscribe(PointCloud2, "relative/points")
    image = tensor_to_image(IMAGE, "rgb8", header_of(1))
    text = "set input.fov to go without [camera_info_missing]"
    client.repeat(lambda: client.publish("image", image), lambda: text in node.output(), "warning")


def test_compressed_images(start, client, disparity):
    import cv2

    start({"input.image_transport": "compressed"})
    client.subscribe(Image, "disparity/image")
    png = cv2.imencode(".png", IMAGE.numpy()[..., ::-1])[1].tobytes()
    header = header_of(3)
    info = CameraInfo(header=header, width=WIDTH, height=HEIGHT, k=[40.0, 0, 20, 0, 40, 15, 0, 0, 1])

    def send():
        client.publish("camera_info", info)
        client.publish("image/compressed", CompressedImage(header=header, format="png", data=png))

    client.repeat(send, lambda: client.received["disparity/image"], "disparity")
    np.testing.assert_allclose(values(client.received["disparity/image"][0]), disparity, atol=1e-5)


def test_sharp_frames_keep_the_stamp_of_their_image(start, client, depth):
    start({"sharp.period": 0.0, "sharp.steps": 3})
    client.subscribe(Image, "disparity/image", "sharp/disparity/image", "sharp/depth/image", "sharp/normals/image")
    client.subscribe(FrameReport, "report")
    topics = "sharp/disparity/image", "sharp/depth/image", "sharp/normals/image", "disparity/image"
    client.warm_up(IMAGE, *topics, depth=depth)
    header = client.send_and_wait(IMAGE, 5, depth)

    def newest(topic):
        return client.received[topic] and client.received[topic][-1].header == header

    client.until(lambda: all(newest(topic) for topic in topics), "sharp topics")
    client.until(
        lambda: client.received["report"][-1].stage == FrameReport.STAGE_SHARPENER and newest("report"), "report"
    )
    sharp = client.received["report"][-1]
    assert sharp.metric and sharp.frames_sharpened >= 1 and "sharpen" in sharp.latency_names
    # The random adapters start as zeros, so the sharpener's velocity is the base's; its steps still change the result.
    difference = values(client.received["sharp/disparity/image"][-1]) - values(client.received["disparity/image"][-1])
    assert np.abs(difference).max() > 1e-4
