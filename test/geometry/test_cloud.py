import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.cloud import flying_pixels, organized_cloud

HEIGHT, WIDTH = 41, 67
CAMERA = Camera.from_intrinsics(WIDTH, HEIGHT, 60.0, 55.0, 30.0, 17.0)
IMAGE = torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
ALL = {"stride": 1, "min_depth": 0.0, "max_depth": math.inf, "edge_threshold": 0.0}


def xyz(depth, **options):
    return organized_cloud(depth, CAMERA, IMAGE, None, **(ALL | options))[..., :3]


def two_walls(near: float, far: float, blur: int) -> torch.Tensor:
    """A near wall on the left of column 33 and a far one on the right, as a network that blurs disparity sees them."""
    inverse = torch.full((HEIGHT, WIDTH + blur - 1), 1 / far)
    inverse[:, : 33 + blur // 2] = 1 / near
    return 1 / F.avg_pool1d(inverse[:, None], blur, stride=1)[:, 0]


@given(
    f_px=st.floats(30, 600),
    tilt=st.floats(0, 1.55),
    around=st.floats(0, 2 * math.pi),
    distance=st.floats(0.1, 50),
    threshold=st.floats(0.001, 0.5),
)
def test_no_plane_loses_a_pixel(f_px, tilt, around, distance, threshold):
    """Up to its horizon, with the sky behind it: a pixel at 89 degrees may have twice the depth of its neighbor."""
    camera = Camera.from_intrinsics(WIDTH, HEIGHT, f_px, 0.9 * f_px, 30.0, 17.0)
    normal = torch.tensor([math.sin(tilt) * math.cos(around), math.sin(tilt) * math.sin(around), -math.cos(tilt)])
    inverse = (camera.rays.double() @ -normal.double()) / distance
    assume(bool((inverse > 0).any()))
    depth = torch.where(inverse > 0, 1 / inverse, torch.inf).float()
    assert not flying_pixels(depth, threshold).any()


@pytest.mark.parametrize("blur", [2, 3, 4, 6])
@pytest.mark.parametrize("far", [4.0, math.inf])
@pytest.mark.parametrize("mirrored", [False, True])
def test_what_hangs_between_two_walls_flies(blur, far, mirrored):
    depth = two_walls(2.0, far, blur)
    hanging = (depth > 2.2) & (1 / depth > 1 / far + 0.03)
    if mirrored:
        depth, hanging = depth.flip(1), hanging.flip(1)
    assert hanging.any()
    # In rows, and turned by a quarter in columns.
    for mask, expected in ((flying_pixels(depth, 0.05), hanging), (flying_pixels(depth.T, 0.05).T, hanging)):
        assert mask[expected].all()
        assert not mask[(depth < 2.05) | (1 / depth < 1 / far + 1e-6)].any()


def test_a_sharp_edge_and_a_thin_thing_before_a_wall_lose_nothing():
    depth = torch.full((HEIGHT, WIDTH), 5.0)
    depth[:, 20:23] = 2.0
    depth[15:, 40:] = 3.0
    assert not flying_pixels(depth, 0.05).any()


def test_threshold_is_a_share_of_the_depth():
    depth = two_walls(2.0, 2.4, 3)
    assert flying_pixels(depth, 0.03).any() and not flying_pixels(depth, 0.15).any()
    assert torch.equal(flying_pixels(7 * depth, 0.03), flying_pixels(depth, 0.03))


def test_flying_points_are_nan_in_the_cloud_and_zero_keeps_them():
    depth = two_walls(2.0, 4.0, 3)
    mask = flying_pixels(depth, 0.05)
    assert torch.equal(torch.isnan(xyz(depth, edge_threshold=0.05)).all(-1), mask) and mask.any()
    assert torch.equal(xyz(depth), CAMERA.unproject(depth))


@given(stride=st.integers(1, 9))
def test_stride_takes_every_nth_pixel_as_it_is(stride):
    """Flying pixels are looked for before: between those that are left an edge would be sharp."""
    depth = two_walls(2.0, 4.0, 4)
    options = ALL | {"edge_threshold": 0.05}
    normals = torch.rand(HEIGHT, WIDTH, 3)
    cloud = organized_cloud(depth, CAMERA, IMAGE, normals, **(options | {"stride": stride}))
    assert cloud.shape == (math.ceil(HEIGHT / stride), math.ceil(WIDTH / stride), 7)
    full = organized_cloud(depth, CAMERA, IMAGE, normals, **options)
    assert torch.equal(cloud.view(torch.int32), full[::stride, ::stride].contiguous().view(torch.int32))


@pytest.mark.parametrize(
    ("limits", "kept"), [({}, [1, 2, 3]), ({"min_depth": 2.0}, [2, 3]), ({"max_depth": 2.0}, [1, 2])]
)
def test_limits_and_what_is_no_depth(limits, kept):
    depth = torch.full((HEIGHT, WIDTH), math.nan)
    depth[0, :5] = torch.tensor([1.0, 2.0, 3.0, math.inf, -math.inf])
    points = xyz(depth, **limits)
    finite = torch.isfinite(points).all(-1)
    assert points[finite][:, 2].tolist() == kept
    assert torch.isnan(points[~finite]).all()  # in all three coordinates


def test_color_is_packed_and_normals_follow():
    normals = torch.rand(HEIGHT, WIDTH, 3)
    cloud = organized_cloud(torch.ones(HEIGHT, WIDTH), CAMERA, IMAGE, normals, **ALL)
    red, green, blue = IMAGE.int().unbind(-1)
    assert torch.equal(cloud[..., 3].contiguous().view(torch.int32), red << 16 | green << 8 | blue)
    assert torch.equal(cloud[..., 4:], normals)
