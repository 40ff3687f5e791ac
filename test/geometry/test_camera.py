import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lotus2_ros.geometry.camera import Camera, CameraError

# Everything that could be mixed up differs: W and H, fx and fy, cx and cy.
CAMERA = Camera.from_intrinsics(7, 5, fx=4.0, fy=8.0, cx=3.0, cy=1.0)


def test_convention_pixel_origin_is_the_centre_of_the_top_left_pixel():
    rays = CAMERA.rays
    assert rays.shape == (5, 7, 3)
    assert torch.equal(
        rays[1, 3], torch.tensor([0.0, 0.0, 1.0])
    )  # (u, v) = (cx, cy); with half-pixel centres it is not
    assert torch.equal(rays[0, 0], torch.tensor([-3 / 4, -1 / 8, 1.0]))


def test_convention_x_right_y_down_z_forward():
    points = CAMERA.unproject(torch.full((5, 7), 2.0))
    assert torch.equal(points[1, 3], torch.tensor([0.0, 0.0, 2.0]))
    assert points[1, 6, 0] > 0 and points[4, 3, 1] > 0
    assert torch.equal(points[..., 2], torch.full((5, 7), 2.0))  # depth is along z, not along the ray


def test_points_without_depth_are_nan_in_every_coordinate():
    depth = torch.ones(5, 7)
    depth[1, 3], depth[2, 2] = math.inf, math.nan
    points = CAMERA.unproject(depth)
    assert torch.isnan(points[1, 3]).all() and torch.isnan(points[2, 2]).all()
    assert torch.isfinite(points).all(dim=-1).sum() == 33


def test_unproject_agrees_with_open3d():
    o3d = pytest.importorskip("open3d")
    generator = torch.Generator().manual_seed(0)
    camera = Camera.from_intrinsics(64, 48, 50.0, 61.0, 30.5, 20.25)
    depth = 0.5 + 4 * torch.rand(48, 64, generator=generator)
    cloud = o3d.geometry.PointCloud.create_from_depth_image(
        o3d.geometry.Image(depth.numpy()),
        o3d.camera.PinholeCameraIntrinsic(64, 48, 50.0, 61.0, 30.5, 20.25),
        depth_scale=1.0,
        depth_trunc=100.0,
    )
    theirs = torch.from_numpy(np.asarray(cloud.points)).float().reshape(48, 64, 3)
    torch.testing.assert_close(camera.unproject(depth), theirs, rtol=1e-5, atol=1e-5)


@given(
    fx=st.floats(10, 2000), fy=st.floats(10, 2000), cx=st.floats(-50, 200), cy=st.floats(-50, 200),
    z=st.floats(0.1, 100), u=st.integers(0, 30), v=st.integers(0, 20),
)  # fmt: skip
def test_projecting_a_point_gives_its_pixel_back(fx, fy, cx, cy, z, u, v):
    camera = Camera.from_intrinsics(31, 21, fx, fy, cx, cy)
    point = camera.unproject(torch.full((21, 31), z))[v, u].double()
    projected = camera.K @ point / point[2]
    assert projected[0] == pytest.approx(u, abs=1e-3) and projected[1] == pytest.approx(v, abs=1e-3)


@given(width=st.integers(2, 300), height=st.integers(2, 300))
def test_resizing_keeps_the_directions_of_the_image_corners(width, height):
    resized = CAMERA.resize(width, height)

    def corner(camera, u, v):
        return torch.linalg.inv(camera.K) @ torch.tensor([u, v, 1.0], dtype=torch.float64)

    # Corners of the image are half a pixel outside the centres of its outermost pixels.
    torch.testing.assert_close(corner(CAMERA, -0.5, -0.5), corner(resized, -0.5, -0.5))
    torch.testing.assert_close(corner(CAMERA, 6.5, 4.5), corner(resized, width - 0.5, height - 0.5))


def test_field_of_view_is_horizontal_and_between_outer_edges():
    camera = Camera.from_fov(640, 480, 90.0)
    assert float(camera.K[0, 0]) == pytest.approx(320) and float(camera.K[1, 1]) == pytest.approx(320)
    assert (float(camera.K[0, 2]), float(camera.K[1, 2])) == (319.5, 239.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5, 1, 1, 0, 0), "positive size, got 0 x 5"),
        ((7, 5, 0, 1, 0, 0), "uncalibrated"),
        ((7, 5, 1, -1, 0, 0), "fy=-1"),
        ((7, 5, math.nan, 1, 0, 0), "finite"),
    ],
)
def test_bad_calibrations_are_refused(arguments, message):
    with pytest.raises(CameraError, match=message):
        Camera.from_intrinsics(*arguments)


def test_depth_of_another_size_is_refused():
    with pytest.raises(CameraError, match=r"\(5, 7\), got \(7, 5\)"):
        CAMERA.unproject(torch.ones(7, 5))
