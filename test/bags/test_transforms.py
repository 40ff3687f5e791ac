"""Transforms of a recording: the direction, chains, interpolation, and what is not known."""

from __future__ import annotations

import math

import pytest
import torch

from lotus2_ros.bags.frames import header, message
from lotus2_ros.bags.transforms import KEPT_NS, TransformBuffer, TransformError

S = 10**9
HALF = math.sqrt(0.5)
NONE = (0.0, 0.0, 0.0, 1.0)


def transforms(*entries):
    """(parent, child, stamp in s, translation, quaternion) as a TFMessage."""
    found = []
    for parent, child, stamp, t, q in entries:
        translation = message("geometry_msgs/msg/Vector3", x=t[0], y=t[1], z=t[2])
        rotation = message("geometry_msgs/msg/Quaternion", x=q[0], y=q[1], z=q[2], w=q[3])
        transform = message("geometry_msgs/msg/Transform", translation=translation, rotation=rotation)
        head = header(round(stamp * S), parent)
        found.append(
            message("geometry_msgs/msg/TransformStamped", header=head, child_frame_id=child, transform=transform)
        )
    return message("tf2_msgs/msg/TFMessage", transforms=found)


def buffer(*entries, static=()):
    made = TransformBuffer()
    made.add(transforms(*static), is_static=True)
    for entry in entries:
        made.add(transforms(entry), is_static=False)
    return made


def moved(found, point):
    return (found @ torch.tensor([*point, 1.0], dtype=torch.float64))[:3].tolist()


def test_points_of_a_lidar_in_an_optical_frame():
    # base: x forward, y left, z up. The optical frame looks along x: z forward, x right, y down (REP-103).
    optical = (-0.5, 0.5, -0.5, 0.5)
    known = buffer(static=[
        ("base", "camera_optical", 0, (0.1, 0.0, 0.5), optical), ("/base", "lidar", 0, (-0.4, 0.2, 1.0), NONE),
    ])  # fmt: skip
    # 5 m before the lidar, 1 m to its left: 4.6 m before base, 4.5 before the camera, which sees it left and above.
    found = known.lookup("camera_optical", "lidar", 7 * S)
    assert moved(found, (5.0, 1.0, 0.0)) == pytest.approx([-1.2, -0.5, 4.5])
    back = known.lookup("lidar", "camera_optical", 7 * S)
    assert torch.allclose(back @ found, torch.eye(4, dtype=torch.float64))
    assert moved(known.lookup("base", "lidar", 0), (0, 0, 0)) == pytest.approx([-0.4, 0.2, 1.0])


def test_between_two_poses_it_is_interpolated_and_never_extrapolated():
    turned = (0.0, 0.0, HALF, HALF)  # by 90 degrees about z
    known = buffer(("odom", "base", 1, (0, 0, 0), NONE), ("odom", "base", 2, (4, 0, 0), turned))
    found = known.lookup("odom", "base", round(1.5 * S))
    assert moved(found, (0, 0, 0)) == pytest.approx([2, 0, 0])
    assert moved(found, (1, 0, 0)) == pytest.approx([2 + HALF, HALF, 0])
    for stamp in (0.9, 2.1):
        with pytest.raises(TransformError, match=r"got poses from 1\.000 to 2\.000 s"):
            known.lookup("odom", "base", round(stamp * S))


def test_what_is_not_connected_is_named():
    known = buffer(static=[("base", "lidar", 0, (0, 0, 0), NONE), ("map", "eye", 0, (0, 0, 0), NONE)])
    with pytest.raises(TransformError, match="'base' and 'map' are not connected"):
        known.lookup("eye", "lidar", 0)
    with pytest.raises(TransformError, match="nothing is known of 'radar'"):
        known.lookup("eye", "radar", 0)
    with pytest.raises(TransformError, match="quaternion"):
        buffer(static=[("a", "b", 0, (0, 0, 0), (0, 0, 0, 0))]).lookup("a", "b", 0)
    with pytest.raises(TransformError, match="circle"):
        buffer(static=[("a", "b", 0, (0, 0, 0), NONE), ("b", "a", 0, (0, 0, 0), NONE)]).lookup("c", "a", 0)


def test_old_poses_are_forgotten_and_a_clock_may_be_set_back():
    known = buffer(*(("odom", "base", stamp, (stamp, 0, 0), NONE) for stamp in range(100)))
    assert len(known._frames["base"].poses) == KEPT_NS // S + 1
    known.add(transforms(("odom", "base", 1, (7, 0, 0), NONE)), is_static=False)
    assert moved(known.lookup("odom", "base", S), (0, 0, 0)) == [7, 0, 0]
