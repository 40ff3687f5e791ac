import json
import math

import numpy as np
import pytest
import torch

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.lens import Lens
from lotus2_ros.geometry.projection import rigid_transform, sparse_depth

CAMERA = Camera.from_intrinsics(320, 240, 200.0, 210.0, 150.5, 110.25)
LIDAR = torch.tensor([-0.6, -0.3, 0.0])  # left of the camera, and above it


def sweep(surface) -> torch.Tensor:
    """Points (N, 3) where the rays of a lidar at LIDAR, 0.3 x 0.6 degrees apart, meet ``surface(origin, rays)``."""
    azimuth, elevation = torch.deg2rad(torch.arange(-45, 45, 0.3)), torch.deg2rad(torch.arange(-30.2, 30, 0.6))
    elevation, azimuth = torch.meshgrid(elevation, azimuth, indexing="ij")
    rays = torch.stack((azimuth.tan(), elevation.tan() / azimuth.cos(), torch.ones_like(azimuth)), dim=-1)
    distance = surface(LIDAR, rays)
    points = LIDAR + distance[..., None] * rays
    return points[torch.isfinite(distance)]


def two_walls(origin: torch.Tensor, rays: torch.Tensor) -> torch.Tensor:
    """Depth along the rays of a board at z = 3, x from -0.5 to 0.7, y from -0.6 to 0.8, in front of a wall at z = 8."""
    near, far = 3.0 - origin[2], 8.0 - origin[2]
    x, y = (origin[:2] + near * rays[..., :2]).unbind(-1)
    return torch.where((x > -0.5) & (x < 0.7) & (y > -0.6) & (y < 0.8), near, far)


def test_one_point_falls_on_its_pixel():
    depth = sparse_depth(torch.tensor([[0.4, -0.5, 2.0]]), CAMERA)
    assert depth.shape == (240, 320) and depth.dtype == torch.float32
    assert torch.nonzero(torch.isfinite(depth)).tolist() == [[round(110.25 - 210 * 0.25), round(150.5 + 200 * 0.2)]]
    assert float(depth.nan_to_num().max()) == 2.0  # along z, not along the ray


def test_of_two_points_on_a_pixel_the_nearer_one_is_seen():
    for order in ([0, 1], [1, 0]):
        depth = sparse_depth(torch.tensor([[0.0, 0.0, 2.1], [0.0, 0.0, 2.0]])[order], CAMERA)
        assert depth[torch.isfinite(depth)].tolist() == [2.0]


def test_what_the_camera_does_not_see_is_left_out():
    outside = torch.tensor([[0.0, 0.0, -2.0], [9.0, 0.0, 1.0], [0.0, -9.0, 1.0], [0.0, 0.0, 0.0], [math.nan, 0.0, 1.0]])
    assert not torch.isfinite(sparse_depth(outside, CAMERA)).any()
    assert not torch.isfinite(sparse_depth(torch.empty(0, 3), CAMERA)).any()


def test_points_fall_where_the_lens_draws_them():
    lens = Lens("equidistant", (0.0, 0.0, 0.0, 0.0))
    depth = sparse_depth(torch.tensor([[2.0, 0.0, 2.0]]), Camera(320, 240, CAMERA.K, lens))
    assert torch.nonzero(torch.isfinite(depth)).tolist() == [[110, round(150.5 + 200 * math.pi / 4)]]


def test_points_behind_a_board_are_dropped_and_those_beside_it_are_kept():
    points = sweep(two_walls)
    pixels, z = CAMERA.project(points)
    column, row = pixels.round().long().unbind(-1)
    inside = (column >= 0) & (column < 320) & (row >= 0) & (row < 240)
    points, column, row, z = points[inside], column[inside], row[inside], z[inside]
    rays = points / z[:, None]
    hidden = two_walls(torch.zeros(3), rays) < z - 1e-3
    depth = sparse_depth(points, CAMERA)
    shown = depth[row, column] == z
    assert hidden.sum() > 500  # the board's shadow from the lidar's place
    assert shown[hidden].float().mean() < 0.01
    assert shown[~hidden].float().mean() > 0.98 and shown[z < 4].all()


@pytest.mark.parametrize(
    "normal", [(0.0, -1.0, 0.0), (-0.9, 0.0, -0.2), (0.5, -0.4, -0.3)], ids=["floor", "wall", "slope"]
)
def test_of_a_surface_seen_at_an_angle_nothing_is_dropped(normal):
    normal = torch.tensor(normal) / torch.tensor(normal).norm()

    def plane(origin, rays):
        distance = (-1.5 - origin @ normal) / (rays @ normal)
        return torch.where((distance > 0) & (distance < 60), distance, torch.nan)

    points = sweep(plane)
    pixels, z = CAMERA.project(points)
    inside = ((pixels > -0.5) & (pixels < torch.tensor([319.5, 239.5]))).all(dim=-1)
    column, row = pixels[inside].round().long().unbind(-1)
    nearest = torch.full((240, 320), math.inf).view(-1).scatter_reduce(0, row * 320 + column, z[inside], "amin")
    shown = torch.isfinite(sparse_depth(points, CAMERA)).sum()
    assert inside.sum() > 3000 and shown > 0.99 * torch.isfinite(nearest).sum()


def test_a_recorded_sweep_keeps_the_road_and_loses_what_is_behind(shared):
    folder = shared / "data" / "outdoor_kitti_object_000001"
    if not folder.is_dir():
        pytest.skip("needs frame 000001 of KITTI's object detection set, whose license forbids commercial use")
    known = json.loads((folder / "intrinsics.json").read_text())
    camera = Camera.from_intrinsics(*(known[key] for key in ("width", "height", "fx", "fy", "cx", "cy")))
    transform = torch.tensor(known["T_cam_lidar"], dtype=torch.float64)
    points = torch.from_numpy(np.fromfile(folder / "velodyne.bin", np.float32).reshape(-1, 4)[:, :3])
    points = (points.double() @ transform[:3, :3].T + transform[:3, 3]).float()
    depth = sparse_depth(points, camera)
    pixels, z = camera.project(points)
    column, row = pixels.nan_to_num(-9).round().long().unbind(-1)

    def share(left, top, right, bottom):
        """Of the points that fall into this part of the image, the share that is seen."""
        there = (z > 0) & (column >= left) & (column < right) & (row >= top) & (row < bottom)
        return float((depth[row[there], column[there]] == z[there]).float().mean())

    assert share(300, 215, 750, 375) > 0.99  # the road, up to 36 m
    assert share(819, 150, 838, 198) < 0.35  # bushes at 32 m that the lidar sees past the mast at 25 m
    assert share(590, 155, 632, 190) > 0.95  # the truck in front, at 63 m


def test_a_transform_of_a_quaternion_turns_and_moves():
    half = math.sqrt(0.5)
    transform = rigid_transform((1.0, 2.0, 3.0), (0.0, 0.0, 2 * half, 2 * half))  # a quarter about z, any length
    torch.testing.assert_close(transform @ torch.tensor([1.0, 0, 0, 1]).double(), torch.tensor([1.0, 3, 3, 1]).double())


def test_the_usual_quaternion_of_an_optical_frame():
    """A body frame (x forward, y left, z up) in its camera's optical frame (x right, y down, z forward), REP-103."""
    rotation = rigid_transform((0.0, 0.0, 0.0), (0.5, -0.5, 0.5, 0.5))[:3, :3]
    expected = torch.tensor([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(rotation, expected)


@pytest.mark.parametrize("x", [math.nan, math.inf])
def test_a_translation_that_is_not_finite_is_refused(x):
    with pytest.raises(ValueError, match="NaN or Inf in the translation"):
        rigid_transform((0.0, x, 0.0), (0.0, 0.0, 0.0, 1.0))


@pytest.mark.parametrize("quaternion", [(0.0, 0.0, 0.0, 0.0), (math.nan, 0.0, 0.0, 1.0)])
def test_a_quaternion_without_a_direction_is_refused(quaternion):
    with pytest.raises(ValueError, match="expected a quaternion with a length above 0"):
        rigid_transform((0.0, 0.0, 0.0), quaternion)
