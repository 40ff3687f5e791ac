"""Points from the camera's motion, before two textured walls at known depths."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.scale.motion import Motion

WIDTH, HEIGHT = 400, 300
CAMERA = Camera.from_intrinsics(WIDTH, HEIGHT, 310.0, 300.0, 190.0, 160.0)
K = CAMERA.K.numpy()
NEAR, FAR, EDGE = 2.0, 4.0, 0.3  # meters: depths of the two walls, and where the near one ends to the right
PIXELS_PER_METER = 160
PERIOD = 0.1


def texture(seed):
    """(800, 1600) uint8 of blobs of several sizes; 10 x 5 m."""
    rng = np.random.default_rng(seed)
    picture = sum(cv2.resize(rng.random((5 * n, 10 * n), dtype=np.float32), (1600, 800)) for n in (4, 12, 40))
    return (255 * (picture - picture.min()) / np.ptp(picture)).astype(np.uint8)


WALLS = {FAR: texture(1), NEAR: texture(2)}


def pose(x=0.0, y=0.0, z=0.0, yaw=0.0, pitch=0.0):
    """(4, 4) of the camera in the world, whose axes are those of the first camera."""
    found = np.eye(4)
    found[:3, :3] = cv2.Rodrigues(np.array([pitch, yaw, 0.0]))[0]
    found[:3, 3] = x, y, z
    return found


def see(where):
    """Image (H, W, 3) uint8 and depth (H, W) along z from a pose."""
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack(((u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)), -1) @ where[:3, :3].T
    depth = np.full((HEIGHT, WIDTH), np.nan)
    for distance, wall in WALLS.items():
        along = (distance - where[2, 3]) / rays[..., 2]
        x, y = (where[k, 3] + along * rays[..., k] for k in range(2))
        seen = cv2.remap(
            wall, ((x + 5) * PIXELS_PER_METER).astype(np.float32), ((y + 2.5) * PIXELS_PER_METER).astype(np.float32),
            cv2.INTER_LINEAR,
        )  # fmt: skip
        is_seen = (x < EDGE) | (distance == FAR)
        image[is_seen], depth[is_seen] = seen[is_seen], along[is_seen]
    return torch.from_numpy(image)[..., None].repeat(1, 1, 3), torch.from_numpy(depth).float()


def play(poses, told=None, motion=None, start=1.0):
    """The references of frames seen from ``poses`` when odometry tells ``told``, and the depths."""
    motion = motion or Motion()
    told = poses if told is None else told
    found = []
    for number, (where, what) in enumerate(zip(poses, told, strict=True)):
        image, depth = see(where)
        found.append((motion.add(image, CAMERA, what, start + PERIOD * number), depth))
    return found


def ratios(reference, depth):
    """Depth of the points over the true one."""
    known = torch.isfinite(reference.depth)
    return reference.depth[known] / depth[known]


def usable(found):
    return [(reference, depth) for reference, depth in found if reference is not None and not reference.problem]


SIDEWAYS = [pose(x=0.05 * n, yaw=0.01 * n) for n in range(10)]
FORWARD = [pose(z=0.06 * n, x=0.01 * n, pitch=-0.004 * n) for n in range(14)]


@pytest.mark.parametrize("poses", [SIDEWAYS, FORWARD], ids=["sideways", "forward"])
def test_points_have_the_depth_of_the_walls(poses):
    found = usable(play(poses))
    assert len(found) > len(poses) // 2
    reference, depth = found[-1]
    ratio = ratios(reference, depth)
    assert len(ratio) > 60 and reference.source == "odometry" and reference.age == 0
    assert float(ratio.median()) == pytest.approx(1, abs=0.01)
    assert float((ratio - 1).abs().quantile(0.8)) < 0.03
    walls = reference.depth[torch.isfinite(reference.depth)]
    assert (walls < 2.5).sum() > 15 and (walls > 3).sum() > 15


def test_a_point_lies_at_the_pixel_that_sees_it():
    """Depth steps from wall to wall: a shift by a few pixels would show there."""
    reference, depth = usable(play(SIDEWAYS))[-1]
    known = torch.isfinite(reference.depth)
    wrong = (reference.depth - depth).abs()[known] > 0.5
    assert wrong.float().mean() < 0.04


def test_the_weight_of_a_point_falls_with_its_error_relative_to_its_own_inverse_depth():
    """The errors in the image are alike; the near wall has twice the inverse depth of the far one."""
    reference, _ = usable(play(SIDEWAYS))[-1]
    loss = 1 - reference.weight
    near, far = (loss[(reference.depth > low) & (reference.depth < low + 1)].median() for low in (1.5, 3.5))
    assert 0 < near < far / 2


def test_depth_is_in_the_unit_of_the_poses():
    twice = [where.copy() for where in SIDEWAYS]
    for where in twice:
        where[:3, 3] *= 2
    reference, depth = usable(play(SIDEWAYS, twice))[-1]
    assert float(ratios(reference, depth).median()) == pytest.approx(2, abs=0.02)


def test_any_fixed_frame_will_do():
    elsewhere = pose(3, -2, 7, 1.1, 0.4)
    reference, depth = usable(play(SIDEWAYS, [elsewhere @ where for where in SIDEWAYS]))[-1]
    assert float(ratios(reference, depth).median()) == pytest.approx(1, abs=0.01)


def test_the_image_mends_the_rotation_of_odometry():
    rng = np.random.default_rng(3)
    told = [where.copy() for where in SIDEWAYS]
    for where in told:
        where[:3, :3] = where[:3, :3] @ cv2.Rodrigues(np.radians(0.2) * rng.standard_normal(3))[0]
    reference, depth = usable(play(SIDEWAYS, told))[-1]
    assert float(ratios(reference, depth).median()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("poses", [[pose()] * 8, [pose(yaw=0.02 * n) for n in range(8)]], ids=["standing", "turning"])
def test_without_a_baseline_there_are_no_points(poses):
    assert not [reference for reference, _ in play(poses) if reference is not None]


@pytest.mark.parametrize("turn", [0.0, 0.01], ids=["standing", "turning"])
def test_points_age_while_the_camera_stands_or_turns(turn):
    last = SIDEWAYS[-1]
    still = [last @ pose(yaw=turn * n) for n in range(1, 6)]
    found = usable(play(SIDEWAYS + still))
    assert [round(reference.age, 3) for reference, _ in found[-5:]] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert float(ratios(*found[-1]).median()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (SIDEWAYS[:5] + [SIDEWAYS[4]] * 5, "expected"),
        ([pose()] * 10, "stands still"),
        (SIDEWAYS[:6] + [pose(1.0, 0.5) @ where for where in SIDEWAYS[6:]], "corners that move as odometry says"),
        ([pose(z=where[0, 3]) @ pose(yaw=0.01 * n) for n, where in enumerate(SIDEWAYS)], "odometry"),
    ],
    ids=["frozen", "never moves", "jumps", "another frame"],
)
def test_wrong_odometry_is_refused_with_the_reason(told, text):
    found = [reference for reference, _ in play(SIDEWAYS, told) if reference is not None]
    assert found[-1].problem and any(text in reference.problem for reference in found)
    assert not torch.isfinite(found[-1].depth).any()


def test_after_a_jump_it_goes_on_when_odometry_is_right_again():
    poses = [pose(x=0.05 * n) for n in range(20)]
    told = poses[:6] + [pose(1.0, 0.5) @ where for where in poses[6:]]
    found = play(poses, told)
    assert found[6][0].problem
    reference, depth = usable(found)[-1]
    assert reference is found[-1][0]
    assert float(ratios(reference, depth).median()) == pytest.approx(1, abs=0.01)


def test_odometry_that_goes_on_after_it_was_frozen_jumps_by_an_unknown_length():
    """The image agrees with its direction, so the length would be believed."""
    poses = [pose(x=0.05 * n) for n in range(24)]
    found = play(poses, poses[:4] + [poses[3]] * 8 + poses[12:])
    assert "got the same for 0.9 s, and a jump" in found[12][0].problem
    sizes = [float(ratios(*each).median()) for each in usable(found[12:])]
    assert sizes and sizes == pytest.approx([1.0] * len(sizes), abs=0.02)  # 1.5 if it is believed


def test_a_robot_that_stops_and_goes_on_is_trusted():
    """Wheels that stand give the same pose again and again."""
    poses = SIDEWAYS[:5] + [SIDEWAYS[4]] * 8 + SIDEWAYS[5:]
    assert not any(reference.problem for reference, _ in play(poses) if reference is not None)


def test_after_a_gap_or_when_time_goes_back_it_starts_anew():
    motion = Motion()
    play(SIDEWAYS, motion=motion)
    for start in (9.0, 1.0):
        assert play(SIDEWAYS[:1], motion=motion, start=start)[0][0] is None


def test_large_images_are_followed_at_a_smaller_size():
    camera = CAMERA.resize(4 * WIDTH, 4 * HEIGHT)
    motion, reference = Motion(), None
    for number, where in enumerate(SIDEWAYS):
        image, depth = see(where)
        large = cv2.resize(image.numpy(), (4 * WIDTH, 4 * HEIGHT), interpolation=cv2.INTER_LINEAR)
        reference = motion.add(torch.from_numpy(large), camera, where, 1 + PERIOD * number)
    large = torch.from_numpy(cv2.resize(depth.numpy(), (4 * WIDTH, 4 * HEIGHT), interpolation=cv2.INTER_NEAREST))
    assert reference.depth.shape == (4 * HEIGHT, 4 * WIDTH)
    assert float(ratios(reference, large).median()) == pytest.approx(1, abs=0.01)
