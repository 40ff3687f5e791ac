"""Calibrations in a running node: distorted, rectified, binned, and changing while it runs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sensor_msgs.msg import PointCloud2

from lotus2_ros.config import InputConfig
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.lens import Lens
from lotus2_ros.ros.synchronizer import image_is_rectified

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


@pytest.mark.parametrize(
    ("choice", "topic", "rectified"),
    [
        ("auto", "/a/image_rect", True),
        ("auto", "/a/image_raw", False),
        ("yes", "/a/image_raw", True),
        ("no", "/a/image_rect", False),
    ],
)
def test_images_are_rectified_by_parameter_or_name(choice, topic, rectified):
    for transport, name in (("raw", "image"), ("compressed", "image/compressed")):
        node = SimpleNamespace(resolve_topic_name={name: topic}.__getitem__)
        assert image_is_rectified(node, InputConfig(image_transport=transport, rectified=choice)) is rectified
