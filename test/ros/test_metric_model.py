"""Meters by a metric model in a running node, and clouds without the floor and what is unsure, seen over DDS.

The node runs in this process, because its metric model is a made one: it knows the depth of the one image that is sent.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lotus2_ros.msg import FrameReport
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, PointCloud2

from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.floor import Floor, floor_mask
from lotus2_ros.ros.perception import PerceptionNode
from lotus2_ros.scale.metric_model import MetricModel
from test.ros.test_node import HEIGHT, IMAGE, WIDTH, depth, disparity, values

pytestmark = pytest.mark.ros
__all__ = ["depth", "disparity"]  # fixtures
CAMERA_HEIGHT, GROUND = 0.5, 0.1  # meters
MAX_SIGMA = 0.297  # of depth


class Exact(torch.nn.Module):
    """Answers any image with the same depth (H, W)."""

    config = SimpleNamespace(model_type="depth_anything")

    def __init__(self, depth: torch.Tensor) -> None:
        super().__init__()
        self.depth = torch.nn.Parameter(depth.clone())

    def forward(self, pixel_values):
        return SimpleNamespace(predicted_depth=self.depth[None])


@pytest.fixture
def node(client, random_bundle, depth, monkeypatch):
    model = MetricModel(Exact(depth), {"size": {"height": HEIGHT, "width": WIDTH}})
    monkeypatch.setattr("lotus2_ros.inference.loading.configured_metric_model", lambda *_: model)
    given = {
        "model.path": str(random_bundle), "model.engine": "torch", "model.warm_up": ["none"],
        "scale.source": "metric_model", "scale.metric_model": "made", "scale.metric_period": 0.0,
        "scale.camera_height": CAMERA_HEIGHT, "cloud.remove_ground": "all", "cloud.ground_height": GROUND,
        "cloud.edge_threshold": 0.0, "cloud.sigma": True, "cloud.max_sigma": MAX_SIGMA,
    }  # fmt: skip
    overrides = [Parameter(name, value=value) for name, value in given.items()]
    node = PerceptionNode(context=client.context, parameter_overrides=overrides)
    client.executor.add_node(node)
    node.start()
    yield node
    client.executor.remove_node(node)
    node.close(timeout=allowed(5.0))


def test_a_metric_model_gives_meters_and_clouds_have_no_floor_and_nothing_unsure(node, client, depth):
    client.subscribe(FrameReport, "report")
    topics = "depth/image", "uncertainty/depth", "normals/image", "points"
    client.subscribe(Image, *topics[:3])
    client.subscribe(PointCloud2, "points")
    client.warm_up(IMAGE, *topics)
    header = client.send_and_wait(IMAGE, 2)
    client.until(lambda: all(client.received[topic] for topic in topics), str(topics))
    report, (found, sigma, normals, cloud) = (
        client.received["report"][0],
        (client.received[topic][0] for topic in topics),
    )
    assert report.metric and report.scale_source == "metric_model" and cloud.header == header
    np.testing.assert_allclose(values(found), depth, rtol=1e-2)
    assert (values(sigma) / values(found)).min() > 0.15
    camera = Camera(
        WIDTH, HEIGHT, torch.tensor([[0.8 * WIDTH, 0, 0.45 * WIDTH], [0, 0.9 * HEIGHT, 0.55 * HEIGHT], [0, 0, 1]])
    )
    z, n = (torch.from_numpy(values(message).copy()) for message in (found, normals))
    is_floor = floor_mask(z, camera.rays, n, GROUND, Floor(torch.tensor([0.0, 1 / CAMERA_HEIGHT, 0.0])))
    is_unsure = values(sigma) > MAX_SIGMA * z.numpy()
    removed = is_floor.numpy() | is_unsure
    assert [field.name for field in cloud.fields] == ["x", "y", "z", "rgb", "sigma"]
    points = np.frombuffer(cloud.data, np.float32).reshape(HEIGHT, WIDTH, 5)
    assert 20 < is_floor.sum() < 0.5 * HEIGHT * WIDTH
    assert 20 < (is_unsure & ~is_floor.numpy()).sum() < 0.5 * HEIGHT * WIDTH
    np.testing.assert_array_equal(np.isnan(points[..., :3]).any(-1), removed)
    np.testing.assert_allclose(points[~removed][:, :3], camera.unproject(z)[~removed], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(points[~removed][:, 4], values(sigma)[~removed])
