"""The floor in rendered scenes, with what a network makes of depth and normals."""

import math

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lotus2_ros import scenes
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.floor import Floor, corrected_floor, find_floor, floor_mask

WIDTH, HEIGHT = 320, 240
NEAR = 3.0  # meters
BUMP, NOISE = 0.02, 0.08  # of depth, smooth; of normals


def smooth(generator, channels):
    coarse = torch.randn(1, channels, 6, 8, generator=generator)
    return F.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic")[0]


def seen(kind, seed):
    """A view, its depth with bumps, its normals with errors, and the direction up."""
    view = scenes.view(seed, WIDTH, HEIGHT, kind)
    generator = torch.Generator().manual_seed(seed)
    depth = view.depth * (1 + BUMP * smooth(generator, 1)[0])
    normals = F.normalize(view.normals + NOISE * smooth(generator, 3).permute(1, 2, 0), dim=-1)
    return view, depth, normals, torch.from_numpy(view.pose.rotation()[2].copy()).float()


def rotated(vector, axis, degrees):
    turn = cv2.Rodrigues(np.radians(degrees) * np.asarray(axis))[0]
    return torch.from_numpy(turn @ np.asarray(vector)).float()


# A camera that looks down by 40 degrees and is turned about its view, 1.3 m above a floor that fills the image.
CAMERA = Camera.from_intrinsics(WIDTH, HEIGHT, 250.0, 240.0, 140.0, 150.0)
UP = -rotated([0.0, math.cos(math.radians(40)), math.sin(math.radians(40))], [0.0, 0.0, 1.0], 8.0)
ALL_FLOOR = 1.3 / -(CAMERA.rays @ UP)


def above(view, depth, up):
    """Height (H, W) above the floor, in meters."""
    return view.camera.unproject(depth) @ up + float(view.pose.position[2])


@pytest.mark.parametrize(("kind", "seed"), [("room", 201), ("corridor", 201), ("corridor", 202), ("warehouse", 201)])
def test_no_floor_is_left_and_what_stands_on_it_is(kind, seed):
    view, depth, normals, up = seen(kind, seed)
    truth = above(view, view.depth, up)
    is_floor = (truth.abs() < 0.01) & (view.normals @ up > 0.98)
    mask = floor_mask(depth, view.camera.rays, normals, 0.1)
    left = is_floor & ~mask & (depth < NEAR) & (above(view, depth, up) > 0.05)
    assert is_floor.float().mean() > 0.03 and int(left.sum()) == 0
    stands = (truth > 0.4) & (view.depth < NEAR)
    assert float((mask & stands).sum()) <= 0.01 * float(stands.sum())


def test_the_plane_is_that_of_the_floor():
    view, depth, normals, up = seen("corridor", 202)
    floor = find_floor(depth, view.camera.rays, normals)
    assert floor.up @ up > math.cos(math.radians(3))
    assert float(1 / floor.plane.norm()) == pytest.approx(float(view.pose.position[2]), rel=0.05)


def test_a_wall_is_no_floor():
    depth = torch.full((HEIGHT, WIDTH), 2.0)
    view = scenes.view(201, WIDTH, HEIGHT, "room")
    normals = torch.tensor([0.0, 0.0, -1.0]).expand(HEIGHT, WIDTH, 3)
    assert find_floor(depth, view.camera.rays, normals) is None
    assert not floor_mask(depth, view.camera.rays, normals, 0.1).any()


@pytest.mark.parametrize(("error", "is_found"), [(17.0, True), (25.0, False)])
def test_normals_that_disagree_with_depth_make_no_floor(error, is_found):
    """All normals are off by ``error`` degrees."""
    floor = find_floor(ALL_FLOOR, CAMERA.rays, rotated(UP, [1.0, 0.0, 0.0], error).expand(HEIGHT, WIDTH, 3))
    assert (floor is not None) == is_found
    if is_found:
        torch.testing.assert_close(floor.plane, -UP / 1.3, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("pitch", "height", "is_corrected"), [(2.5, 1.05, True), (-2.5, 0.95, True), (0.0, 1.2, False)]
)
def test_a_mount_that_is_a_little_off_is_corrected(pitch, height, is_corrected):
    mounted = Floor(-rotated(UP, [1.0, 0.0, 0.0], pitch) / (1.3 * height))
    corrected = corrected_floor(mounted, ALL_FLOOR, CAMERA.rays, UP.expand(HEIGHT, WIDTH, 3))
    expected = -UP / 1.3 if is_corrected else mounted.plane
    torch.testing.assert_close(corrected.plane, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("depth", [math.nan, math.inf, 0.2])
def test_where_no_floor_is_seen_the_mount_stays(depth):
    mounted = Floor(-UP / 1.3)
    corrected = corrected_floor(mounted, torch.full((HEIGHT, WIDTH), depth), CAMERA.rays, UP.expand(HEIGHT, WIDTH, 3))
    torch.testing.assert_close(corrected.plane, mounted.plane)


def test_where_there_is_no_depth_there_is_no_floor():
    view, _, normals, _ = seen("room", 201)
    assert not floor_mask(torch.full((HEIGHT, WIDTH), math.nan), view.camera.rays, normals, 0.1).any()
