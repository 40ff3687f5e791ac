"""The camera's pose by odometry and by /tf, and what is refused."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import pytest
import torch
from rclpy.time import Time
from ros_messages import header_of

from lotus2_ros.config import Config
from lotus2_ros.config.live import LiveConfig
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.projection import rigid_transform
from lotus2_ros.ros.odometry import CameraMotion
from lotus2_ros.ros.transforms import Transforms

CAMERA = Camera.from_intrinsics(8, 6, 5.0, 6.0, 3.0, 2.0)
IMAGE = torch.zeros(6, 8, 3, dtype=torch.uint8)
MOUNT = "0.3 0 0.4 0.5 -0.5 0.5 -0.5"  # a level camera, 0.3 m before the robot's center and 0.4 m above


def odometry(stamp, x=0.0, yaw=0.0, child="base_link"):
    """The fields of a nav_msgs/Odometry that are read."""
    pose = SimpleNamespace(
        position=SimpleNamespace(x=x, y=0.0, z=0.0),
        orientation=SimpleNamespace(x=0.0, y=0.0, z=math.sin(yaw / 2), w=math.cos(yaw / 2)),
    )
    return SimpleNamespace(header=header_of(stamp, "odom"), child_frame_id=child, pose=SimpleNamespace(pose=pose))


class Recorder:
    """A CameraMotion with what it hands to the triangulation, and what it rejects."""

    def __init__(self, monkeypatch, **scale):
        self.config = Config().updated({f"scale.{name}": value for name, value in scale.items()})
        self.poses, self.rejected = [], {}
        self.motion = CameraMotion(self, LiveConfig(self.config), Transforms())
        monkeypatch.setattr(
            self.motion._motion, "add", lambda image, camera, pose, stamp: self.poses.append(torch.from_numpy(pose))
        )

    def reject(self, reason, text, frame=True):
        assert not frame
        self.rejected[reason] = text

    def see(self, stamp, frame="camera"):
        return self.motion.for_frame(IMAGE, header_of(stamp, frame), CAMERA, self.config.scale)


def test_the_pose_of_the_camera_is_that_of_the_robot_and_its_mount(monkeypatch):
    recorder = Recorder(monkeypatch, camera_pose=MOUNT)
    recorder.motion.odometry(odometry(1.0, x=2.0, yaw=math.pi / 2))
    assert recorder.see(1.0) is None and not recorder.rejected
    (pose,) = recorder.poses
    # The robot looks along y: so does the camera, whose right is x.
    torch.testing.assert_close(pose[:3, 3], torch.tensor([2.0, 0.3, 0.4]).double())
    expected = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]).double()
    torch.testing.assert_close(pose[:3, :3], expected, atol=1e-9, rtol=0)


def test_poses_are_those_of_the_images_time(monkeypatch):
    recorder = Recorder(monkeypatch, camera_pose=MOUNT)
    for stamp, x in ((1.0, 0.0), (1.1, 0.2)):
        recorder.motion.odometry(odometry(stamp, x))
    recorder.see(1.05)
    recorder.see(1.15)
    assert [round(float(pose[0, 3]), 6) for pose in recorder.poses] == [0.4, 0.6]


def test_odometry_of_the_camera_itself_needs_no_mount(monkeypatch):
    recorder = Recorder(monkeypatch)
    recorder.motion.odometry(odometry(1.0, x=2.0, child="camera"))
    recorder.see(1.0)
    assert float(recorder.poses[0][0, 3]) == 2.0


@pytest.mark.parametrize(("source", "problem"), [("auto", False), ("odometry", True)])
def test_missing_odometry_is_a_problem_only_where_it_is_asked_for(monkeypatch, source, problem):
    recorder = Recorder(monkeypatch, source=source, camera_pose=MOUNT)
    found = recorder.see(1.0)
    assert bool(found) == problem and bool(recorder.rejected) == problem
    assert not problem or "expected the camera's pose at 1.000 s" in found.problem


def test_two_odometries_on_one_topic_are_named(monkeypatch):
    recorder = Recorder(monkeypatch, camera_pose=MOUNT)
    for stamp, child in ((1.0, "base_link"), (1.1, "base_link"), (1.1, "base_footprint")):
        assert not recorder.rejected
        recorder.motion.odometry(odometry(stamp, child=child))
    assert (
        "expected poses of 'base_link' in 'odom' as before, got those of 'base_footprint'"
        in (recorder.rejected["odometry_frames"])
    )


def test_odometry_of_another_clock_says_so_wherever_it_comes(monkeypatch):
    recorder = Recorder(monkeypatch, camera_pose=MOUNT)
    for stamp in (1.0, 2.0):
        recorder.motion.odometry(odometry(stamp))
    assert "at 100.000 s, got those from 1.000 to 2.000 s" in recorder.see(100.0).problem
    assert set(recorder.rejected) == {"odometry_missing"}


def test_odometry_from_before_a_bag_started_over_is_not_of_another_clock(monkeypatch):
    recorder = Recorder(monkeypatch, camera_pose=MOUNT)
    recorder.motion.odometry(odometry(9.0))
    recorder.see(9.0)
    assert recorder.see(1.0) is None and not recorder.rejected
    recorder.motion.odometry(odometry(9.0))  # this one is
    assert "at 1.100 s, got those from 9.000 to 9.000 s" in recorder.see(1.1).problem


def test_a_position_that_is_not_finite_is_rejected(monkeypatch):
    recorder = Recorder(monkeypatch, camera_pose=MOUNT)
    recorder.motion.odometry(odometry(1.0, x=math.nan))
    assert "NaN" in recorder.rejected["odometry_pose"] and recorder.see(1.0) is None and not recorder.poses


def test_without_tf_the_mount_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    recorder = Recorder(monkeypatch, source="odometry")
    recorder.motion.odometry(odometry(1.0))
    assert "set scale.camera_pose" in recorder.see(1.0).problem


class Tf:
    """In place of tf2_ros, which wheels do not bring: a camera that moves along x by 2 m/s."""

    class TransformException(Exception):  # noqa: N818 - tf2's name
        pass

    def __init__(self):
        self.known_until = math.inf
        self.TransformListener = lambda buffer, node: SimpleNamespace(unregister=lambda: None)

    def Buffer(self):  # noqa: N802 - tf2's name
        return self

    def lookup_transform(self, target, source, time: Time):
        stamp = time.nanoseconds * 1e-9 or self.known_until
        if stamp > self.known_until:
            raise Tf.TransformException("Lookup would require extrapolation into the future")
        assert (target, source) == ("odom", "camera")
        moved, zero = SimpleNamespace(x=2 * stamp, y=0.0, z=0.0), SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0)
        return SimpleNamespace(
            header=header_of(stamp, target), transform=SimpleNamespace(translation=moved, rotation=zero)
        )


@pytest.mark.parametrize("behind", [-1.0, 0.04])
def test_the_pose_by_tf_alone_also_when_tf_is_behind(monkeypatch, behind):
    tf = Tf()
    monkeypatch.setitem(sys.modules, "tf2_ros", tf)
    recorder = Recorder(monkeypatch, source="odometry", fixed_frame="odom")
    recorder.motion.listen()
    for number in range(4):
        stamp = 1 + 0.1 * number
        tf.known_until = stamp - behind
        recorder.see(stamp)
    assert len(recorder.poses) >= 3
    torch.testing.assert_close(recorder.poses[-1], rigid_transform((2.6, 0, 0), (0, 0, 0, 1)))
