"""Calibrations in a running node: distorted, rectified, binned, and changing while it runs."""

import numpy as np
import pytest
import torch
from sensor_msgs.msg import CameraInfo, PointCloud2
from std_msgs.msg import Header

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.lens import Lens
from lotus2_ros.ros.messages import tensor_to_image

pytestmark = pytest.mark.ros
HEIGHT, WIDTH = 36, 52
IMAGE = torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
K = [40.0, 0.0, 24.0, 0.0, 42.0, 20.0, 0.0, 0.0, 1.0]
P = [35.0, 0.0, 27.0, -4.0, 0.0, 36.0, 15.0, 0.0, 0.0, 0.0, 1.0, 0.0]
D = [-0.2, 0.05, 0.001, -0.002, 0.0]


def rays_of(client, stamp: int, **info) -> torch.Tensor:
    """x / z and y / z of the cloud that comes of an image with this camera_info, (H, W, 2)."""
    clouds = client.received["relative/points"]

    def of_this():
        return [cloud for cloud in clouds if cloud.header.stamp.sec == stamp]

    client.repeat(lambda: client.send_frame(IMAGE, stamp, k=K, p=P, **info), of_this, "cloud")
    points = torch.from_numpy(np.frombuffer(of_this()[0].data, np.float32).reshape(HEIGHT, WIDTH, 4).copy())
    return points[..., :2] / points[..., 2:3]


def expected(lens: Lens | None = None, fx=40.0, fy=42.0, cx=24.0, cy=20.0) -> torch.Tensor:
    return Camera(WIDTH, HEIGHT, Camera.from_intrinsics(WIDTH, HEIGHT, fx, fy, cx, cy).K, lens).rays[..., :2]


def assert_where_seen(got: torch.Tensor, rays: torch.Tensor) -> None:
    """Edges of depth have no points."""
    seen = torch.isfinite(got).all(dim=-1)
    assert seen.float().mean() > 0.5
    torch.testing.assert_close(got[seen], rays[seen], rtol=0, atol=1e-5)


def test_the_cloud_follows_the_lens_and_every_change_of_the_calibration(start, client):
    start({"sharp.enabled": False, "cloud.edge_threshold": 0.0})
    client.subscribe(PointCloud2, "relative/points")
    assert_where_seen(rays_of(client, 1, d=D, distortion_model="plumb_bob"), expected(Lens("plumb_bob", tuple(D))))
    fisheye = (-0.01, 0.03, 0.0, 0.0)
    changed = rays_of(client, 2, d=list(fisheye), distortion_model="equidistant")
    assert_where_seen(changed, expected(Lens("equidistant", fisheye)))
    binned = rays_of(client, 3, width=2 * WIDTH, height=2 * HEIGHT, binning_x=2, binning_y=2)
    assert_where_seen(binned, expected(None, 20.0, 21.0, (24 + 0.5) / 2 - 0.5, (20 + 0.5) / 2 - 0.5))


def test_images_on_a_rectified_topic_have_the_rays_of_p(start, client, monkeypatch):
    start(
        {"sharp.enabled": False, "cloud.edge_threshold": 0.0},
        command=("-m", "lotus2_ros.ros.node", "--ros-args", "-r", "image:=/front/image_rect_color"),
    )
    publish, names = client.publish, {"image": "/front/image_rect_color"}
    monkeypatch.setattr(client, "publish", lambda topic, message: publish(names.get(topic, topic), message))
    client.subscribe(PointCloud2, "relative/points")
    got = rays_of(client, 1, d=D, distortion_model="plumb_bob")
    assert_where_seen(got, expected(None, 35.0, 36.0, 27.0, 15.0))


def test_uncalibrated_camera_info_gives_way_to_the_field_of_view(start, client):
    """As usb_cam and v4l2_camera send it without a calibration file."""
    start({"sharp.enabled": False, "cloud.edge_threshold": 0.0, "input.fov": 70.0})
    client.subscribe(PointCloud2, "relative/points")
    header = Header(frame_id="camera_optical")
    header.stamp.sec = 1

    def send() -> None:
        client.publish("camera_info", CameraInfo(header=header, width=WIDTH, height=HEIGHT))
        client.publish("image", tensor_to_image(IMAGE, "rgb8", header))

    client.repeat(send, lambda: client.received["relative/points"], "cloud")
    points = np.frombuffer(client.received["relative/points"][0].data, np.float32).reshape(HEIGHT, WIDTH, 4)
    rays = torch.from_numpy(points[..., :2] / points[..., 2:3])
    assert_where_seen(rays, Camera.from_fov(WIDTH, HEIGHT, 70.0).rays[..., :2])


def test_a_calibration_of_another_size_is_warned_of_once(start, client):
    node = start({"sharp.enabled": False})
    client.subscribe(PointCloud2, "relative/points")
    for stamp, fx in enumerate((400.0, 401.0, 402.0), start=1):
        k = [fx, 0.0, 259.5, 0.0, fx, 179.5, 0.0, 0.0, 1.0]
        client.repeat(
            lambda stamp=stamp, k=k: client.send_frame(IMAGE, stamp, k=k),
            lambda stamp=stamp: any(cloud.header.stamp.sec == stamp for cloud in client.received["relative/points"]),
            "cloud",
        )
    assert node.output().count("K looks like that of an image of about 520x360") == 1
