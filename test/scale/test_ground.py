import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from lotus2_ros.config import ScaleConfig
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.scale.fit import AlignmentError
from lotus2_ros.scale.ground import average_shifts, mounted_floor, scale_from_ground, up_from_angles

# Everything that could be mixed up differs: W and H, fx and fy, cx and cy.
CAMERA = Camera.from_intrinsics(96, 64, fx=70.0, fy=80.0, cx=40.0, cy=37.0)
HEIGHT = 1.2  # of the camera in the default box


def metric(shift, depth):
    """What scale and shift have to be for a disparity in [0, 1] with that s in depth ~ 1 / (disparity + s)."""
    scale = float(1 / depth.min() - 1 / depth.max())
    return pytest.approx(scale, rel=1e-4), pytest.approx(scale * shift, rel=1e-3)


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(
    yaw=st.floats(-3, 3), pitch=st.floats(0.05, 0.7), roll=st.floats(-0.6, 0.6), height=st.floats(0.3, 3),
    ahead=st.floats(3, 9), cx=st.floats(20, 75), cy=st.floats(10, 40),
)  # fmt: skip
def test_exact_in_any_room(box, yaw, pitch, roll, height, ahead, cx, cy):
    camera = Camera.from_intrinsics(96, 64, 60.0, 65.0, cx, cy)
    seen = box((-4.0, -1.5, -ahead), (5.0, height, ahead), yaw, pitch, roll)
    disparity, normals, shift = seen.disparity(camera.rays)
    scale_, shift_, stats = scale_from_ground(disparity, normals, camera.K, seen.up, height)
    floor = (normals.double() @ seen.up > 0.99).float().mean()
    if stats.refusal:
        assert floor < 0.05
        return
    assert (float(scale_), float(shift_)) == metric(shift, seen.render(camera.rays)[0])


@given(factor=st.floats(1e-2, 1e2), offset=st.floats(-5, 5), times=st.floats(0.1, 10))
def test_height_is_the_unit_and_disparity_is_affine_invariant(box, factor, offset, times):
    disparity, normals, _ = box().disparity(CAMERA.rays)
    scale, shift, _ = scale_from_ground(disparity, normals, CAMERA.K, box().up, HEIGHT)
    scale_, shift_, stats = scale_from_ground(
        factor * (disparity + offset), normals, CAMERA.K, box().up, torch.tensor(times * HEIGHT)
    )
    stats.check()
    assert float(scale_) == pytest.approx(float(scale) / (times * factor), rel=1e-3)
    assert float(shift_) == pytest.approx(float(shift - scale * offset) / times, rel=1e-3, abs=1e-3 / times)


@pytest.mark.parametrize("table", [0.3, 0.6, 0.8])
def test_of_several_level_planes_the_lowest_is_the_floor(box, table):
    """A table 0.75 m high in the nearer rows of the image, that takes more and more of what is level."""
    room = box((-9.0, -3.0, -9.0), (9.0, HEIGHT, 9.0), 0.2, 0.5, 0.0)
    above = box((-9.0, -3.0, -9.0), (9.0, HEIGHT - 0.75, 9.0), 0.2, 0.5, 0.0)
    depth, normals = room.render(CAMERA.rays)
    on_table = torch.zeros_like(depth, dtype=torch.bool)
    rows = (normals.double() @ room.up > 0.99).any(-1).nonzero().flatten()
    on_table[rows[int((1 - table) * len(rows)) :]] = True
    depth = torch.where(on_table, above.render(CAMERA.rays)[0], depth)
    disparity = (1 / depth - 0.05) / 1.7
    scale, shift, stats = scale_from_ground(disparity, normals, CAMERA.K, room.up, HEIGHT)
    stats.check()
    assert (float(scale), float(shift)) == (pytest.approx(1.7, rel=1e-2), pytest.approx(0.05, abs=5e-3))


def test_the_surer_of_two_shifts_counts_more():
    """The floor's line 2 d + 0.6 through disparities 0.4 to 0.6, and normals that say depth ~ 1 / (d + 0.5)."""
    disparity, by_normals = torch.tensor([0.4, 0.5, 0.6], dtype=torch.float64), torch.tensor(0.5).double()

    def averaged(residual: float, relative_shift=by_normals) -> tuple[float, float]:
        line = (torch.tensor(value).double() for value in (2.0, 0.6, residual))
        scale, shift = average_shifts(*line, disparity, relative_shift, torch.ones(3))
        assert float(0.5 * scale + shift) == pytest.approx(1.6)  # the middle of the floor stays
        return float(scale), float(shift)

    assert averaged(0.0) == averaged(0.1, torch.tensor(math.nan)) == pytest.approx((2.0, 0.6))
    assert averaged(1e6) == pytest.approx((1.6, 0.8))  # the shift is half the scale
    shifts = [averaged(residual)[1] for residual in (0.0, 0.003, 0.01, 0.03, 0.1, 1e6)]
    assert shifts == sorted(shifts) and len(set(shifts)) == len(shifts)


@given(factor=st.floats(1e-2, 1e2), offset=st.floats(-5, 5))
def test_with_a_shift_by_normals_too_disparity_is_affine_invariant(box, factor, offset):
    disparity, normals, _ = box().disparity(CAMERA.rays)
    noisy = disparity + 0.03 * noise(0, 64, 96)

    def fit(factor: float, offset: float, by_normals: bool) -> tuple[float, float]:
        scale_, shift_, _ = scale_from_ground(
            factor * (noisy + offset), normals, CAMERA.K, box().up, HEIGHT, shift_by_normals=by_normals
        )
        return float(scale_ * factor), float(shift_ + scale_ * factor * offset)

    assert fit(factor, offset, True) == pytest.approx(fit(1.0, 0.0, True), rel=1e-3)
    assert fit(1.0, 0.0, True) != pytest.approx(fit(1.0, 0.0, False), rel=1e-3)


def test_noise_of_disparity_and_normals(box):
    disparity, normals, shift = box().disparity(CAMERA.rays)
    disparity = disparity + 0.01 * noise(0, 64, 96)
    normals = F.normalize(normals + math.radians(5) * noise(1, 64, 96, 3), dim=-1)
    scale_, shift_, _ = scale_from_ground(disparity, normals, CAMERA.K, box().up, HEIGHT)
    depth = box().render(CAMERA.rays)[0]
    scale = float(1 / depth.min() - 1 / depth.max())
    assert (float(scale_), float(shift_)) == (pytest.approx(scale, rel=0.03), pytest.approx(scale * shift, rel=0.03))


def test_rays_of_a_lens_replace_those_of_a_pinhole(box):
    radius = CAMERA.rays[..., :2].norm(dim=-1, keepdim=True)
    rays = torch.cat((CAMERA.rays[..., :2] * (1 + 0.4 * radius.square()), CAMERA.rays[..., 2:]), dim=-1)
    disparity, normals, shift = box().disparity(rays)
    expected = metric(shift, box().render(rays)[0])
    rays[:, :4] = torch.nan
    scale_, shift_, stats = scale_from_ground(disparity, normals, CAMERA.K, box().up, HEIGHT, rays)
    stats.check()
    assert (float(scale_), float(shift_)) == expected


def test_batched_equals_one_by_one(box):
    boxes = [box(), box(pitch=0.5), box(pitch=-0.9)]
    disparity, normals = (
        torch.stack(items) for items in zip(*(b.disparity(CAMERA.rays)[:2] for b in boxes), strict=True)
    )
    up, height = torch.stack([seen.up for seen in boxes]), torch.tensor([1.2, 0.6, 1.2])
    scale, shift, stats = scale_from_ground(disparity, normals, CAMERA.K, up, height)
    for i in range(3):
        scale_, shift_, one = scale_from_ground(disparity[i], normals[i], CAMERA.K, up[i], height[i])
        torch.testing.assert_close(torch.stack((scale[i], shift[i])), torch.stack((scale_, shift_)), equal_nan=True)
        assert stats.refusal[i] == one.refusal
    assert stats.refusal.bool().tolist() == [False, False, True] and torch.isnan(scale[2]) and torch.isnan(shift[2])


@pytest.mark.parametrize("pitch", [-0.9, 1.57])
def test_no_floor_or_one_that_says_nothing_is_refused(box, pitch):
    """A ceiling, whose normal points down; a floor straight below, all of one disparity."""
    seen = box((-9.0, -1.0, -9.0), (9.0, 1.2, 9.0), 0.0, pitch, 0.0)
    disparity, normals, _ = seen.disparity(CAMERA.rays)
    if pitch > 0:
        disparity = torch.full_like(disparity, 0.5)
    scale, shift, stats = scale_from_ground(disparity, normals, CAMERA.K, seen.up, 1.2)
    assert torch.isnan(scale) and torch.isnan(shift)
    with pytest.raises(AlignmentError, match="disparity that varies" if pitch > 0 else "a floor in at least 1 %"):
        stats.check()


def test_convention_pitch_looks_down_and_roll_turns_clockwise():
    torch.testing.assert_close(up_from_angles(0, 0), torch.tensor([0.0, -1, 0]).double())
    # A camera that looks straight down has up behind it; one on its right side has it on the left.
    torch.testing.assert_close(up_from_angles(90, 0), torch.tensor([0.0, 0, -1]).double())
    torch.testing.assert_close(up_from_angles(0, 90), torch.tensor([-1.0, 0, 0]).double())


def test_the_floor_by_the_mount_is_where_it_is():
    config = ScaleConfig(camera_height=0.5, camera_pitch=30.0)
    floor = mounted_floor(config)
    # The optical axis of a camera that looks 30 degrees down meets the floor at twice its height.
    assert float(floor.height(torch.tensor(1.0), torch.tensor([0.0, 0.0, 1.0]))) == pytest.approx(0, abs=1e-6)
    assert float(floor.height(torch.tensor(0.5), torch.tensor([0.0, 0.0, 1.0]))) == pytest.approx(0.25, abs=1e-6)
    assert mounted_floor(ScaleConfig(camera_pitch=30.0)) is None


@given(yaw=st.floats(-3, 3), pitch=st.floats(-1.5, 1.5), roll=st.floats(-3, 3))
def test_angles_are_those_of_the_camera_whatever_its_yaw(box, yaw, pitch, roll):
    up = box(yaw=yaw, pitch=pitch, roll=roll).up
    torch.testing.assert_close(up_from_angles(math.degrees(pitch), math.degrees(roll)), up)


def test_nothing_waits_for_the_device():
    """Tensors without values: whatever asked for one would fail."""
    disparity, normals = torch.empty(2, 64, 96, device="meta"), torch.empty(2, 64, 96, 3, device="meta")
    up = torch.empty(2, 3, device="meta")
    scale, shift, stats = scale_from_ground(disparity, normals, CAMERA.K, up, 1.2)
    assert scale.shape == shift.shape == stats.refusal.shape == (2,)
