from itertools import pairwise

import numpy as np
import pytest
import torch

from lotus2_ros import scenes
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.scenes.builder import Builder
from lotus2_ros.scenes.render import Renderer
from lotus2_ros.scenes.world import Pose, World


def wall_world() -> World:
    """One wall, its face at x = 3, and a floor at z = 0."""
    b = Builder(np.random.default_rng(0))
    b.add("box", (1.0, 40.0, 40.0), (3.5, 0.0, 0.0), b.surface())
    b.add("box", (40.0, 40.0, 1.0), (0.0, 0.0, -0.5), b.surface())
    return World("room", b.parts, [], np.ones(3), lambda rng: None, (60, 60), 0.1)


def test_depth_and_normals_of_a_wall_and_a_floor_are_exact_with_an_off_centre_camera():
    camera = Camera.from_intrinsics(40, 30, 35.0, 33.0, 12.5, 9.25)
    pose = Pose(np.array([1.0, 0.5, 1.2]), yaw=0.0, pitch=0.0)
    view = Renderer(wall_world()).view(pose, camera, seed=0)
    assert view.pose is pose
    v = torch.arange(30.0)[:, None].expand(30, 40)
    below = (v - 9.25) / 33.0  # per meter of depth; the floor is 1.2 m below the camera, the wall 2 m ahead
    floor = below * 2.0 > 1.2
    expected = torch.where(floor, 1.2 / below, torch.full_like(v, 2.0))
    torch.testing.assert_close(view.depth, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        view.normals[~floor], torch.tensor([0.0, 0, -1]).expand(int((~floor).sum()), 3), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        view.normals[floor], torch.tensor([0.0, -1, 0]).expand(int(floor.sum()), 3), atol=1e-5, rtol=0
    )


def test_yaw_turns_left_and_pitch_up():
    rotation = Pose(np.zeros(3), yaw=np.pi / 2, pitch=0.3).rotation()
    np.testing.assert_allclose(rotation[:, 2], [0, np.cos(0.3), np.sin(0.3)], atol=1e-12)  # forward is +y, raised
    np.testing.assert_allclose(rotation[:, 0], [1, 0, 0], atol=1e-12)  # right is +x
    assert np.linalg.det(rotation) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", scenes.KINDS)
def test_a_scene_is_always_the_same_and_well_formed(kind):
    view, again = (scenes.view(7, 48, 36, kind) for _ in range(2))
    assert torch.equal(view.image, again.image) and torch.equal(view.depth, again.depth)
    assert view.image.shape == (36, 48, 3) and view.image.dtype == torch.uint8 and view.image.float().std() > 5
    seen = torch.isfinite(view.depth)
    assert (view.depth[seen] > 0).all() and seen.float().mean() > 0.3
    assert torch.isnan(view.normals[~seen]).all()
    torch.testing.assert_close(view.normals[seen].norm(dim=-1), torch.ones(int(seen.sum())))
    assert ((view.normals * view.camera.rays).sum(-1)[seen] <= 1e-5).all()  # toward the camera


def test_scenes_differ_and_views_of_a_scene_differ():
    first = scenes.views(3, 40, 32)
    assert not torch.equal(next(first).depth, next(first).depth)
    assert not torch.equal(scenes.view(3, 40, 32).depth, scenes.view(4, 40, 32).depth)


def test_only_streets_have_a_sky():
    assert torch.isinf(torch.stack([scenes.view(s, 48, 36, "street").depth for s in range(4)])).any()
    assert torch.isfinite(torch.stack([scenes.view(s, 48, 36, "room").depth for s in range(4)])).all()


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="expected a kind among room"):
        scenes.view(0, 40, 30, "cellar")


def test_a_sequence_moves_smoothly_and_keeps_its_distance():
    views = list(scenes.sequence(seed=0, frames=12, width=64, height=48))
    assert [view.stamp_s for view in views] == pytest.approx([i / 10 for i in range(12)])
    assert all(view.depth.min() > 0.2 for view in views)
    steps = [(a.image.float() - b.image.float()).abs().mean() for a, b in pairwise(views)]
    across = (views[0].image.float() - views[-1].image.float()).abs().mean()
    assert 0 < max(steps) < across


def test_points_of_one_surface_lie_in_the_plane_its_normal_says():
    view = scenes.view(11, 80, 60, "room")
    points = view.camera.unproject(view.depth)
    flat = (view.normals[1:, 1:] - view.normals[:-1, :-1]).norm(dim=-1) < 1e-3
    along = points[1:, 1:] - points[:-1, :-1]
    offset = (along * view.normals[:-1, :-1]).sum(-1).abs() / along.norm(dim=-1)
    # Neighbors with equal normals may still lie on two parallel surfaces.
    assert (offset[flat] < 1e-3).float().mean() > 0.85
