"""What the worlds are made of, and what a camera makes of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lotus2_ros import scenes
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.lens import EQUIDISTANT, PLUMB_BOB, Lens
from lotus2_ros.scenes import curved, shapes, small, thin, things
from lotus2_ros.scenes.builder import Builder, Surface, turn_x
from lotus2_ros.scenes.photo import photograph
from lotus2_ros.scenes.render import Renderer
from lotus2_ros.scenes.world import Pose, World

CAMERA = Camera.from_intrinsics(160, 120, 120.0, 118.0, 77.5, 61.0)
AHEAD = Pose(np.array([0.0, 0.0, 1.0]), yaw=0.0, pitch=0.0)  # along +x


def world(b: Builder) -> World:
    return World("room", b.parts, [], np.ones(3), lambda rng: AHEAD, (60, 60), 0.1)


def glowing(color: tuple[float, float, float], **properties: float) -> Surface:
    b = Builder(np.random.default_rng(0))
    return replace(b.paint(), colors=np.tile(color, (3, 1)), gloss=0.0, glow=1.0, **properties)


def facing_sheet(b: Builder, x: float, surface: Surface) -> None:
    b.at(x, 0, 1.0, np.pi / 2).add("sheet", (20.0, 1.0, 20.0), (0, 0, 0), surface)


def seen(b: Builder) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    view = Renderer(world(b)).view(AHEAD, CAMERA, seed=1)
    return view.image.float().mean((0, 1)), view.depth, view.normals


def test_a_mirror_shows_what_is_behind_the_camera_and_is_itself_the_truth():
    b = Builder(np.random.default_rng(0))
    facing_sheet(b, 2.0, glowing((0.02, 0.02, 0.02), mirror=0.95))
    b.add("box", (0.1, 40.0, 40.0), (-3.0, 0.0, 0.0), glowing((0.05, 0.05, 0.9)))
    color, depth, normals = seen(b)
    assert color[2] > 1.3 * color[0]
    torch.testing.assert_close(depth, torch.full_like(depth, 2.0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(normals, torch.tensor([0.0, 0, -1]).expand_as(normals), atol=1e-5, rtol=0)


def test_through_glass_one_sees_what_is_behind_it_but_the_pane_is_the_truth():
    b = Builder(np.random.default_rng(0))
    facing_sheet(b, 1.5, glowing((0.02, 0.02, 0.02), clear=0.9, mirror=0.05))
    b.add("box", (0.1, 40.0, 40.0), (6.0, 0.0, 0.0), glowing((0.9, 0.05, 0.05)))
    color, depth, normals = seen(b)
    assert color[0] > 1.3 * color[2]
    torch.testing.assert_close(depth, torch.full_like(depth, 1.5), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(normals, torch.tensor([0.0, 0, -1]).expand_as(normals), atol=1e-5, rtol=0)


def test_points_of_a_torus_are_on_it_and_its_normals_leave_its_core():
    b = Builder(np.random.default_rng(0))
    tilted = b.at(2.0, 0.0, 1.0, np.pi / 2)
    tilted.ring(0.6, 0.15, (0, 0, 0), b.paint(), sides=48)
    view = Renderer(world(b)).view(AHEAD, CAMERA, seed=0)
    hit = ~view.sky
    points = view.camera.unproject(view.depth)[hit].double() - torch.tensor([0.0, 0.0, 2.0])  # optical axes
    around = points[:, :2].norm(dim=-1)
    core = torch.cat((0.6 * points[:, :2] / around[:, None], torch.zeros(len(points), 1)), dim=-1)
    outward = points - core
    assert hit.sum() > 500
    torch.testing.assert_close(outward.norm(dim=-1), torch.full_like(around, 0.15), atol=6e-3, rtol=0)
    agreement = (torch.nn.functional.normalize(outward, dim=-1) * view.normals[hit]).sum(-1)
    assert agreement.min() > 0.9


def test_a_wire_of_four_millimeters_is_where_it_hangs():
    b = Builder(np.random.default_rng(0))
    thin.hang(b, (2.0, -2.0, 1.2), (2.0, 2.0, 1.2), 0.2, 0.004, b.paint())
    depth = Renderer(world(b)).view(AHEAD, CAMERA, seed=0).depth
    middle = torch.isfinite(Renderer(world(b)).view(AHEAD, CAMERA.resize(1600, 1200), seed=0).depth)[:, 780]
    assert torch.nonzero(middle).float().mean() == pytest.approx(614.5, abs=8)  # sags to the camera's height
    assert 2 - 0.005 < depth[torch.isfinite(depth)].min() < 2.005


@pytest.mark.parametrize("build", [*dict.fromkeys(things.FURNITURE), *things.DECEPTIVE, curved.drum, curved.globe])
def test_a_thing_stands_on_the_floor_and_is_no_bigger_than_a_bed(build):
    for seed in range(3):
        b = Builder(np.random.default_rng(seed))
        build(b)
        vertices = np.concatenate([part.vertices for part in b.parts])
        assert np.isfinite(vertices).all()
        assert -0.15 < vertices[:, 2].min() < 0.1 and np.ptp(vertices, axis=0).max() < 3.5


def test_every_small_thing_is_small():
    for thing in small._THINGS:
        b = Builder(np.random.default_rng(1))
        thing(b, 0.2, b.paint())
        assert max(np.ptp(part.vertices, axis=0).max() for part in b.parts) < 0.8


def test_an_unknown_shape_is_refused():
    with pytest.raises(ValueError, match="expected a shape among box"):
        shapes.unit("cube", np.random.default_rng(0))


def test_thin_things_are_seen_at_160_pixels():
    b = Builder(np.random.default_rng(0))
    thin.railing(b.at(2.5, 0, 0, np.pi / 2), 3.0, 1.0)
    depth = Renderer(world(b)).view(AHEAD, CAMERA, seed=0).depth
    edges = torch.isfinite(depth[:, 1:]) != torch.isfinite(depth[:, :-1])
    assert edges.sum() > 200


@pytest.mark.parametrize(
    "lens", [Lens(PLUMB_BOB, (-0.15, 0.02, 1e-3, -2e-3)), Lens(EQUIDISTANT, (0.01, 0.0, 0.0, 0.0))]
)
def test_a_distorted_view_projects_back_to_its_pixels(lens):
    b = Builder(np.random.default_rng(0))
    b.turned(turn_x(0.2)).add("box", (40.0, 40.0, 0.1), (0, 0, -1.0), b.paint())
    b.add("box", (1.0, 40.0, 40.0), (4.5, 0, 0), b.paint())
    camera = replace(CAMERA, lens=lens)
    view = Renderer(world(b)).view(AHEAD, camera, seed=0)
    points = view.camera.unproject(view.depth)
    pixels, depth = view.camera.project(points)
    v, u = torch.meshgrid(torch.arange(120.0), torch.arange(160.0), indexing="ij")
    hit = ~view.sky
    torch.testing.assert_close(pixels[hit], torch.stack((u, v), -1)[hit], atol=0.02, rtol=0)
    wall = (view.normals - torch.tensor([0.0, 0, -1])).norm(dim=-1) < 1e-3
    assert wall.float().mean() > 0.2
    torch.testing.assert_close(
        depth[wall], torch.full_like(depth[wall], 4.0), atol=1e-3, rtol=0
    )  # straight is straight


def test_the_sky_is_where_nothing_is_hit():
    view = scenes.view(2, 64, 48, "street")
    assert view.sky.dtype == torch.bool and view.sky.any() and not view.sky.all()
    assert torch.equal(view.sky, ~torch.isfinite(view.depth)) and torch.isnan(view.normals[view.sky]).all()


def test_cameras_differ_in_exposure_and_color_and_the_same_one_repeats():
    ramp = torch.linspace(0.1, 1, 64).expand(48, 64)[..., None] * torch.tensor([1.0, 0.5, 0.2])
    depth = torch.full((48, 64), 3.0)
    photos = torch.stack([photograph(ramp, depth, np.random.default_rng(i)) for i in range(60)]).float()
    assert torch.equal(photograph(ramp, depth, np.random.default_rng(5)).float(), photos[5])
    level, chroma = photos.mean((1, 2, 3)), (photos[..., 0] - photos[..., 2]).mean((1, 2))
    assert level.max() > 1.5 * level.min()
    assert (chroma.abs() < 3).any() and (chroma > 40).any()


@pytest.mark.parametrize("kind", scenes.KINDS)
def test_a_sequence_of_any_kind_moves(kind):
    first, second = scenes.sequence(1, 2, 48, 36, kind)
    assert not np.allclose(first.pose.position, second.pose.position) and first.camera is second.camera
