"""Poses between and after those that are known."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lotus2_ros.geometry.projection import rigid_transform
from lotus2_ros.scale.trajectory import AHEAD, Trajectory, interpolate


def turned(degrees, x=0.0):
    """At x meters, turned about z."""
    half = math.radians(degrees) / 2
    return rigid_transform((x, 0, 0), (0, 0, math.sin(half), math.cos(half)))


def trajectory(*poses):
    found = Trajectory()
    for stamp, pose in poses:
        found.add(stamp, pose)
    return found


MOVING = ((1.0, turned(10, 1.0)), (1.1, turned(30, 3.0)))


@pytest.mark.parametrize(
    ("stamp", "degrees", "x"), [(1.0, 10, 1.0), (1.1, 30, 3.0), (1.05, 20, 2.0), (1.025, 15, 1.5), (1.15, 40, 4.0)]
)
def test_poses_are_interpolated_and_go_on_for_a_moment(stamp, degrees, x):
    torch.testing.assert_close(trajectory(*MOVING).at(stamp), turned(degrees, x))


def test_a_whole_period_of_ten_hertz_is_not_too_far_ahead():
    """In float64 it is a little more than 0.1 s with today's stamps."""
    today = 1.8e9
    found = trajectory(*((today + stamp, pose) for stamp, pose in MOVING)).at(today + 1.2)
    torch.testing.assert_close(found, turned(50, 5.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("stamp", [0.99, 1.1 + AHEAD + 0.01, 9.0])
def test_elsewhere_there_is_none(stamp):
    assert trajectory(*MOVING).at(stamp) is None
    assert Trajectory().at(stamp) is None


def test_a_long_gap_is_not_filled():
    assert trajectory((1.0, turned(0)), (3.0, turned(0))).at(2.0) is None


def test_one_pose_has_no_velocity():
    assert trajectory(MOVING[0]).at(1.05) is None


def test_when_time_goes_back_the_past_is_forgotten():
    found = trajectory(*MOVING, (0.5, turned(5)))
    assert found.span == (0.5, 0.5) and found.at(1.05) is None
    torch.testing.assert_close(found.at(0.5), turned(5))


@given(st.lists(st.floats(-1, 1), min_size=8, max_size=8), st.floats(0, 1))
def test_a_part_and_the_rest_are_the_whole(numbers, share):
    first = rigid_transform((0, 1, 2), (0.1, 0.2, 0.3, 0.9))
    second = rigid_transform(numbers[:3], (*numbers[3:6], 2.0))  # less than half a turn from the first
    middle = interpolate(first, second, share)
    torch.testing.assert_close(middle[:3, :3] @ middle[:3, :3].T, torch.eye(3, dtype=torch.float64))
    rest = 1.0 if share == 1 else 1 / (1 - share)
    if share < 0.99:
        torch.testing.assert_close(interpolate(middle, second, (1 - share) * rest), second, atol=1e-6, rtol=0)
    torch.testing.assert_close(interpolate(first, second, 0.0), first)
