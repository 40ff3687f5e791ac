import numpy as np
import pytest
import torch

from lotus2_ros import scenes
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.lens import EQUIDISTANT, PLUMB_BOB
from lotus2_ros.scenes.builder import Builder
from lotus2_ros.scenes.cameras import drawn_by_a_lens, pose_before_a_thing
from lotus2_ros.scenes.render import Renderer
from lotus2_ros.scenes.world import Pose, World


def empty_world() -> World:
    """A floor and a wall, and one place to stand."""
    b, pose = Builder(np.random.default_rng(0)), Pose(np.array([1.0, 0.5, 1.2]), yaw=0.0, pitch=0.0)
    b.add("box", (1.0, 40.0, 40.0), (3.5, 0.0, 0.0), b.surface())
    b.add("box", (40.0, 40.0, 1.0), (0.0, 0.0, -0.5), b.surface())
    return World("room", b.parts, [], np.ones(3), lambda rng: pose, (60, 60), 0.1)


def test_some_cameras_distort_and_every_pixel_has_a_ray():
    drawn = [drawn_by_a_lens(Camera.from_fov(64, 48, 90), np.random.default_rng(i)) for i in range(80)]
    assert all(torch.isfinite(camera.rays).all() for camera in drawn)
    assert {camera.lens and camera.lens.model for camera in drawn} == {None, PLUMB_BOB, EQUIDISTANT}


@pytest.mark.parametrize("kind", scenes.KINDS)
def test_a_view_of_a_thing_has_one_in_its_middle_and_near(kind):
    size = (45, 33)
    near, far = ([scenes.view(seed, *size, kind, close_up=of) for seed in range(8)] for of in (True, False))
    assert torch.equal(near[3].image, scenes.view(3, *size, kind, close_up=True).image)
    middles, ordinary = (torch.stack([view.depth[16, 22] for view in views]) for views in (near, far))
    # A pixel or two off the middle of a chair is the wall behind it.
    assert (middles < (5.0 if kind != "street" else 13.0)).float().mean() > 0.8
    assert kind == "desk" or middles.median() < ordinary.median()  # desks are seen from near as it is
    assert all(view.pose.position[2] > 0.1 for view in near)


def test_a_thing_comes_to_the_middle_and_fills_a_good_part_of_the_image():
    world = empty_world()
    b = Builder(np.random.default_rng(0), world.parts)
    b.add("box", (0.5, 0.5, 0.5), (2.5, 1.0, 0.25), b.surface())
    renderer, camera = Renderer(world), Camera.from_fov(40, 30, 60.0)
    assert renderer.is_thing.tolist() == [False, False, True]
    for seed in range(20):
        pose = pose_before_a_thing(world, renderer, np.random.default_rng(seed), camera)
        _, part = renderer.glance(pose, camera)
        assert (part[13:17, 18:22] == 2).any()
        assert 0.03 < (part == 2).float().mean() < 0.9


def test_where_there_are_no_things_a_view_of_one_is_of_what_there_is():
    world, camera = empty_world(), Camera.from_fov(40, 30, 60.0)
    renderer, rng = Renderer(world), np.random.default_rng(0)
    assert not renderer.is_thing.any()
    assert pose_before_a_thing(world, renderer, rng, camera) is world.choose_pose(rng)
