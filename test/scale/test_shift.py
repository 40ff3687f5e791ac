import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.scale.fit import AlignmentError
from lotus2_ros.scale.shift import shift_from_normals

# Everything that could be mixed up differs: W and H, fx and fy, cx and cy.
CAMERA = Camera.from_intrinsics(96, 64, fx=70.0, fy=80.0, cx=40.0, cy=37.0)
ALL = torch.ones(64, 96, dtype=torch.bool)
WALL = torch.tensor([0.0, 0.0, -1.0]).expand(64, 96, 3)


@pytest.fixture(scope="module")
def room(box):
    """Disparity, normals and the true shift."""
    return box().disparity(CAMERA.rays)


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def depth_error(disparity, shift, truth):
    """Median of |ln of the depths' ratio|, which one factor is taken out of."""
    ratio = ((disparity + shift) / (disparity + truth)).log()
    return float((ratio - ratio.median()).abs().median())


@given(
    yaw=st.floats(0.25, 1.3), pitch=st.floats(-0.5, 0.5), roll=st.floats(-0.5, 0.5),
    left=st.floats(-5, -1), right=st.floats(1, 5), up=st.floats(-3, -1), down=st.floats(1, 3), ahead=st.floats(2, 8),
    fx=st.floats(50, 150), fy=st.floats(50, 150), cx=st.floats(20, 75), cy=st.floats(15, 50),
)  # fmt: skip
def test_exact_in_any_room(box, yaw, pitch, roll, left, right, up, down, ahead, fx, fy, cx, cy):
    camera = Camera.from_intrinsics(96, 64, fx, fy, cx, cy)
    seen = box((left, up, -2.0), (right, down, ahead), yaw, pitch, roll)
    disparity, normals, truth = seen.disparity(camera.rays)
    shift, stats = shift_from_normals(disparity, normals, camera.K, ALL)
    stats.check()
    assert depth_error(disparity, shift, truth) < 1e-3
    assert float(stats.residual) < 0.05


@given(factor=st.floats(1e-3, 1e3), offset=st.floats(-5, 5))
def test_an_affine_change_of_disparity_changes_the_shift_as_it_must(room, factor, offset):
    disparity, normals, _ = room
    shift, _ = shift_from_normals(disparity, normals, CAMERA.K, ALL)
    changed, stats = shift_from_normals(factor * (disparity + offset), normals, CAMERA.K, ALL)
    stats.check()
    assert float(changed) == pytest.approx(factor * (float(shift) - offset), abs=1e-3 * factor)


@pytest.mark.parametrize(
    ("axis", "side", "yaw", "pitch"), [(0, 1, 0.6, 0.1), (0, -1, -0.6, 0.1), (1, 1, 0.1, 0.6), (1, -1, 0.1, -0.6)]
)
def test_convention_one_tilted_plane_is_enough_if_its_normal_points_toward_the_camera(box, axis, side, yaw, pitch):
    """A wall on the right or the left, a floor, a ceiling, of a camera turned to it until it fills the image."""
    camera = Camera.from_intrinsics(96, 64, 140.0, 160.0, 40.0, 37.0)
    low, high = [-50.0] * 3, [50.0] * 3
    (high if side > 0 else low)[axis] = 2.0 * side
    disparity, normals, truth = box(tuple(low), tuple(high), yaw, pitch, 0.0).disparity(camera.rays)
    assert torch.allclose(normals, normals[0, 0], atol=1e-6) and normals[0, 0, axis] * side < -0.5
    shift, stats = shift_from_normals(disparity, normals, camera.K, ALL)
    stats.check()
    assert float(shift) == pytest.approx(truth, rel=1e-2)
    mirrored = normals.clone()
    mirrored[..., axis] *= -1
    wrong, stats = shift_from_normals(disparity, mirrored, camera.K, ALL)
    assert stats.refusal or depth_error(disparity, wrong, truth) > 0.05


def test_rays_of_a_lens_replace_those_of_a_pinhole(box):
    radius = CAMERA.rays[..., :2].norm(dim=-1, keepdim=True)
    rays = torch.cat((CAMERA.rays[..., :2] * (1 + 0.4 * radius.square()), CAMERA.rays[..., 2:]), dim=-1)
    disparity, normals, truth = box().disparity(rays)
    rays[:, :8], disparity[:, :8] = torch.nan, 7.0  # outside the lens's range, where the image is anything
    inside = slice(None), slice(8, None)
    shift, stats = shift_from_normals(disparity, normals, CAMERA.K, ALL, rays)
    stats.check()
    assert depth_error(disparity[inside], shift, truth) < 1e-3
    pinhole, _ = shift_from_normals(disparity[inside], normals[inside], CAMERA.K, ALL[inside])
    assert depth_error(disparity[inside], pinhole, truth) > 0.01


def test_what_is_not_valid_is_left_out(room):
    disparity, normals, truth = room[0].clone(), room[1].clone(), room[2]
    sky = torch.zeros(64, 96, dtype=torch.bool)
    sky[:20] = True
    disparity[sky], normals[:20, ::2], normals[:20, 1::2] = 0.0, torch.nan, torch.tensor([0.0, 0, -1])
    disparity[30:34, 40:50], normals[40:44, 40:50] = torch.nan, torch.nan
    shift, stats = shift_from_normals(disparity, normals, CAMERA.K, ~sky)
    stats.check()
    seen = ~sky & torch.isfinite(disparity)
    assert depth_error(disparity[seen], shift, truth) < 1e-3


def test_noise_and_normals_that_are_wrong_in_a_part_of_the_image(room):
    disparity, normals, truth = room
    noisy = disparity + 0.01 * noise(0, 64, 96)
    turned = F.normalize(normals + math.radians(10) * noise(1, 64, 96, 3), dim=-1)
    turned[:32, :40] = F.normalize(torch.tensor([0.5, 0.5, -0.7]), dim=0)
    shift, stats = shift_from_normals(noisy, turned, CAMERA.K, ALL)
    stats.check()
    assert depth_error(disparity, shift, truth) < 0.03 < depth_error(disparity, 0.1, truth)
    assert 0.3 < float(stats.inlier_fraction) < 0.95


def test_batched_equals_one_by_one(box):
    cameras = [CAMERA, Camera.from_intrinsics(96, 64, 60.0, 65.0, 50.0, 30.0), CAMERA]
    views = [box(yaw=yaw).disparity(camera.rays)[:2] for camera, yaw in zip(cameras, (0.4, 0.9, 0.6), strict=True)]
    views[2] = torch.zeros(64, 96), views[2][1]
    disparity, normals = (torch.stack(items) for items in zip(*views, strict=True))
    K = torch.stack([camera.K for camera in cameras])
    shifts, stats = shift_from_normals(disparity[None], normals[None], K, ALL)
    assert shifts.shape == stats.refusal.shape == (1, 3)
    for i in range(3):
        shift, one = shift_from_normals(disparity[i], normals[i], K[i], ALL)
        torch.testing.assert_close(shifts[0, i], shift, equal_nan=True)
        assert stats.refusal[0, i] == one.refusal and stats.points[0, i] == one.points
    assert torch.isnan(shifts[0, 2]) and stats.refusal[0].tolist() == [0, 0, 1]


def nothing_varies(room):
    return torch.full((64, 96), 0.5), WALL, ALL


def nothing_is_valid(room):
    return room[0], room[1], ~ALL


def a_wall_that_faces_the_camera(room):
    return 0.5 + 0.01 * noise(0, 64, 96), WALL, ALL


def the_same_with_noise_in_its_normals(room):
    return 0.5 + 0.01 * noise(0, 64, 96), F.normalize(WALL + 0.2 * noise(1, 64, 96, 3), dim=-1), ALL


def a_wall_in_front_of_another(room):
    return (torch.arange(96) < 50).float().expand(64, 96), WALL, ALL


def normals_of_something_else(room):
    return room[0], room[1] * torch.tensor([-1.0, -1.0, 1.0]), ALL


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (nothing_varies, "disparity that varies"),
        (nothing_is_valid, "disparity that varies"),
        (a_wall_that_faces_the_camera, "does not face the camera, got 0 points"),
        (the_same_with_noise_in_its_normals, "does not face the camera|determine the shift"),
        (a_wall_in_front_of_another, "does not face the camera, got 0 points"),
        (normals_of_something_else, "determine the shift"),
    ],
)
def test_what_does_not_say_anything_of_the_shift_is_refused(room, seen, reason):
    shift, stats = shift_from_normals(*seen(room)[:2], CAMERA.K, seen(room)[2])
    assert torch.isnan(shift)
    with pytest.raises(AlignmentError, match=reason):
        stats.check()


def test_an_image_smaller_than_a_window_is_an_error():
    with pytest.raises(ValueError, match="at least 4 x 4 pixels"):
        shift_from_normals(torch.rand(3, 9), torch.rand(3, 9, 3), CAMERA.K, torch.ones(3, 9, dtype=torch.bool))


def test_nothing_waits_for_the_device():
    """Tensors without values: whatever asked for one would fail."""
    disparity, valid = torch.empty(2, 64, 96, device="meta"), torch.empty(2, 64, 96, device="meta", dtype=torch.bool)
    shift, stats = shift_from_normals(disparity, torch.empty(2, 64, 96, 3, device="meta"), CAMERA.K, valid)
    assert shift.shape == stats.refusal.shape == (2,)
