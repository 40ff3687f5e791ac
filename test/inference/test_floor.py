"""The floor that is left out of clouds, with the bundled model and a sparse reference."""

import math

import pytest
import torch

import lotus2_ros
from lotus2_ros import scenes
from lotus2_ros.config import CloudConfig, ScaleConfig
from lotus2_ros.inference.clouds import cloud_of
from lotus2_ros.scale.ground import mounted_floor

POINTS, RANGE = 200, 3.0  # meters


@pytest.fixture(scope="module")
def estimator():
    return lotus2_ros.load(parameters={"model.threads": 1})


@pytest.fixture(scope="module", params=[("corridor", 202), ("warehouse", 203)])
def seen(request, estimator):
    """A view and the model's geometry of it."""
    kind, seed = request.param
    view = scenes.view(seed, 320, 240, kind)
    places = torch.randperm(view.depth.numel(), generator=torch.Generator().manual_seed(0)).view(view.depth.shape)
    reference = torch.where((places < POINTS) & (view.depth < 80), view.depth, math.nan)
    return view, estimator.predict(view.image, view.camera, reference)


@pytest.mark.parametrize("is_mount_known", [False, True])
def test_the_floor_goes_and_obstacles_stay(seen, is_mount_known):
    view, geometry = seen
    up = torch.from_numpy(view.pose.rotation()[2].copy()).float()
    camera_height = float(view.pose.position[2])
    height = view.camera.unproject(view.depth) @ up + camera_height
    pitch, roll = math.degrees(math.asin(-up[2])), math.degrees(math.atan2(-up[0], -up[1]))
    mount = ScaleConfig(camera_height=camera_height, camera_pitch=pitch, camera_roll=roll)
    config = CloudConfig(edge_threshold=0.0)
    with_floor = cloud_of(geometry, config)[..., :3]
    without = cloud_of(geometry, config, with_floor=False, floor=mounted_floor(mount) if is_mount_known else None)
    left, before = (torch.isfinite(cloud[..., :3]).all(-1) for cloud in (without, with_floor))
    is_floor = (height.abs() < 0.01) & (view.normals @ up > 0.98) & (view.depth < RANGE)
    stands = (height > 0.3) & (view.depth < RANGE) & (view.normals @ up < 0.5)
    marks = with_floor @ up + camera_height > 0.05  # what a costmap takes for an obstacle
    assert is_floor.float().mean() > 0.1 and (is_floor & left & marks).sum() < 0.002 * is_floor.sum()
    assert (stands & before & ~left).sum() <= 0.02 * stands.sum()
