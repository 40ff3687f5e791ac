"""What the topics say of a geometry."""

import math
from dataclasses import replace

import pytest
import torch
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lotus2_ros.config import CloudConfig
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference import clouds
from lotus2_ros.inference.annotations import Annotations
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.model.engine.device import Stopwatch
from lotus2_ros.ros.messages import MessageError, depth_to_tensor
from lotus2_ros.ros.topics import FILTERED, SIGMA, TOPICS, Topic, messages_of, payloads_of
from lotus2_ros.scale.scale import Scale
from lotus2_ros.scale.spread import Spread

HEIGHT, WIDTH = 10, 13
ALL = CloudConfig(edge_threshold=0.0)


@pytest.fixture
def geometry() -> Geometry:
    """Disparity from 0 at the left to 1 at the right, sky in the top row, metric: 1 / depth = disparity + 0.1."""
    disparity = torch.linspace(0, 1, WIDTH).repeat(HEIGHT, 1)
    sky = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    sky[0] = True
    image = torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    camera, scale = Camera.from_fov(WIDTH, HEIGHT, 60.0), Scale(1.0, 0.1, "reference_depth", True)
    return Geometry(image, camera, "core", scale, Annotations(disparity), Stopwatch(torch.device("cpu")), sky=sky)


def named(geometry: Geometry, cloud: CloudConfig = ALL) -> dict:
    return dict(messages_of(geometry, None, Header(frame_id="eye"), cloud, lambda topic: True))


@pytest.mark.parametrize("metric", [True, False])
def test_the_sky_is_inf_in_depth_nan_in_the_cloud_and_left_alone_in_disparity(geometry, metric):
    geometry = replace(geometry, scale=replace(geometry.scale, metric=metric))
    prefix = "" if metric else "relative/"
    payloads = payloads_of(geometry, None, ALL, lambda topic: True)
    depth, points = payloads[prefix + "depth/image"], payloads[prefix + "points"][..., :3]
    assert torch.isposinf(depth[0]).all() and torch.isfinite(depth[1:]).all()
    assert torch.isnan(points[0]).all() and torch.isfinite(points[1:]).all()
    assert torch.equal(payloads["disparity/image"], geometry.disparity)
    assert depth[5, 0] == pytest.approx(10.0) and depth[5, -1] == pytest.approx(1 / 1.1)


def test_sky_is_no_measurement_to_who_takes_the_depth_as_a_reference(geometry):
    message = named(geometry)["depth/image"]
    assert torch.isnan(depth_to_tensor(message)[0]).all()
    with pytest.raises(MessageError, match="only NaN, Inf or 0"):
        depth_to_tensor(named(replace(geometry, sky=torch.ones(HEIGHT, WIDTH, dtype=torch.bool)))["depth/image"])


def test_a_stride_leaves_every_nth_pixel_of_every_nth_row(geometry):
    cloud = named(geometry, replace(ALL, stride=4))["points"]
    assert (cloud.height, cloud.width) == (math.ceil(HEIGHT / 4), math.ceil(WIDTH / 4))
    assert cloud.row_step == cloud.width * cloud.point_step and len(cloud.data) == cloud.height * cloud.row_step
    assert not cloud.is_dense


def test_the_cloud_to_be_filtered_is_that_of_the_points_and_only_metric(geometry):
    payloads = payloads_of(geometry, None, ALL, lambda topic: True)
    assert payloads[FILTERED] is payloads["points"]
    assert list(payloads_of(geometry, None, ALL, lambda topic: topic == FILTERED)) == [FILTERED]
    relative = replace(geometry, scale=replace(geometry.scale, metric=False))
    assert FILTERED not in payloads_of(relative, None, ALL, lambda topic: True)


def test_no_message_is_made_of_the_cloud_to_be_filtered(geometry):
    assert set(named(geometry)) == {"depth/image", "points", "disparity/image"} <= set(TOPICS) - {FILTERED}


def test_depth_is_not_computed_for_a_subscriber_of_disparity_only(geometry):
    assert list(payloads_of(geometry, None, ALL, lambda name: name == "disparity/image")) == ["disparity/image"]
    assert "depth" not in vars(geometry)  # a cached property
    payloads_of(geometry, None, ALL, lambda name: name == "depth/image")
    assert "depth" in vars(geometry)


def test_a_cloud_is_computed_once_for_all_its_topics(geometry, monkeypatch):
    made = []

    def counting(*arguments, **options):
        made.append(arguments)
        return torch.zeros(HEIGHT, WIDTH, 4)

    monkeypatch.setattr(clouds, "organized_cloud", counting)
    assert {"points", FILTERED} <= payloads_of(geometry, None, ALL, lambda name: True).keys()
    assert len(made) == 1


def test_what_is_unsure_is_in_the_image_and_the_cloud_and_left_out_beyond_the_limit(geometry):
    sure = replace(geometry, scale=replace(geometry.scale, spread=Spread("camera_height", geometry.scale.scale)))
    assert SIGMA not in named(geometry) and SIGMA in named(sure)
    share = sure.sigma / sure.depth
    limit = float(share[1:].median())
    cloud = payloads_of(sure, None, replace(ALL, sigma=True, max_sigma=limit), lambda name: name == "points")["points"]
    assert torch.equal(torch.isnan(cloud[1:, :, 0]), share[1:] > limit) and torch.isnan(cloud[1:, :, 0]).any()
    assert torch.equal(cloud[1:, :, 4], sure.sigma[1:])


def test_a_topic_is_one_entry_of_the_table(geometry, monkeypatch):
    """Its producer stands beside its name; nothing else has to know of it."""
    gray = Topic(Image, "depth", "gray", lambda source: source.geometry.image.float().mean(-1), "32FC1")
    monkeypatch.setitem(TOPICS, "gray", gray)
    message = named(geometry)["gray"]
    assert (message.height, message.width, message.encoding) == (HEIGHT, WIDTH, "32FC1")
