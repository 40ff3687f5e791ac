"""The camera's motion in a recording: meters by odometry and by /tf, as in the node, and after an interruption."""

from __future__ import annotations

import math
from concurrent.futures import Future

import numpy as np
import pytest

from test.bags.test_transforms import transforms
from test.ros.test_offline import depths
from test.scale.test_motion import CAMERA, pose, see

pytest.importorskip("rclpy")

from rosbags.rosbag2 import StoragePlugin, Writer

from lotus2_ros.bags import InputError, ResumableBag, open_recording, read_messages
from lotus2_ros.bags.frames import camera_info_message, header, image_message, message, typestore
from lotus2_ros.config import Config
from lotus2_ros.inference.facts import ModelFacts
from lotus2_ros.inference.work import Prediction
from lotus2_ros.ros import offline
from lotus2_ros.ros.offline import Task, process_recording
from lotus2_ros.ros.serialized import deserialize

S = 10**9
FRAMES, PERIOD = 7, S // 10
SCALE, SHIFT = 0.7, 0.1  # of the predicted disparity, in 1 / m
# The camera `eye` on the robot `base`: it looks along the robot's x, 0.2 m before its center and 0.4 m above.
OPTICAL = (-0.5, 0.5, -0.5, 0.5)
MOUNT = np.array([[0, 0, 1, 0.2], [-1, 0, 0, 0], [0, -1, 0, 0.4], [0, 0, 0, 1.0]])


def camera_at(seconds: float) -> np.ndarray:
    """The camera moves to its right and turns; (4, 4) in the frame of the first view."""
    return pose(x=0.5 * seconds, yaw=0.1 * seconds)


def robot_at(seconds: float) -> tuple[np.ndarray, tuple[float, ...]]:
    """Position and quaternion of the robot in `odom`, whose axes are those of the robot at the start."""
    found = MOUNT @ camera_at(seconds) @ np.linalg.inv(MOUNT)
    yaw = math.atan2(found[1, 0], found[0, 0])
    return found[:3, 3], (0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2))


def odometry(seconds: float, stamp: int):
    place, q = robot_at(seconds)
    where = message(
        "geometry_msgs/msg/Pose",
        position=message("geometry_msgs/msg/Point", **dict(zip("xyz", place.tolist(), strict=True))),
        orientation=message("geometry_msgs/msg/Quaternion", **dict(zip("xyzw", q, strict=True))),
    )
    zero = message("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
    twist = message("geometry_msgs/msg/Twist", linear=zero, angular=zero)
    return message(
        "nav_msgs/msg/Odometry", header=header(stamp, "odom"), child_frame_id="base",
        pose=message("geometry_msgs/msg/PoseWithCovariance", pose=where, covariance=np.zeros(36)),
        twist=message("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
    )  # fmt: skip


def record(path, topic):
    """Poses on ``topic`` 25 times a second, not at the stamps of the images and recorded 60 ms later."""
    items = [("/tf_static", transforms(("base", "eye", 0, MOUNT[:3, 3].tolist(), OPTICAL)), 3 * S)]  # late
    for index in range(FRAMES):
        stamp = 2 * S + index * PERIOD
        head = header(stamp, "eye")
        items.append(("/camera_info", camera_info_message(CAMERA, head), stamp))
        items.append(("/image", image_message(see(camera_at(index / 10))[0].numpy(), "rgb8", head), stamp + 1))
    for number in range(-2, 20):
        seconds = 0.04 * number + 0.013
        stamp = 2 * S + round(seconds * S)
        place, q = robot_at(seconds)
        item = transforms(("odom", "base", stamp / S, place, q)) if topic == "/tf" else odometry(seconds, stamp)
        items.append((topic, item, stamp + 60_000_000))
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {}
        for name, item, time_ns in sorted(items, key=lambda item: item[2]):
            if name not in connections:
                connections[name] = writer.add_connection(name, item.__msgtype__, typestore=typestore())
            writer.write(connections[name], time_ns, typestore().serialize_cdr(item, item.__msgtype__))
    return path


class Oracle:
    """In place of a model: exact disparity up to scale and shift."""

    facts = ModelFacts("oracle", "float32", "cpu", (), False)
    capacity = 3

    def submit(self, request) -> Future[Prediction]:
        _, depth = see(camera_at(request.index / 10))
        future: Future[Prediction] = Future()
        future.set_result(Prediction({"disparity": ((1 / depth - SHIFT) / SCALE).numpy()}, {}))
        return future


def run(source, out, config, resume=False, **options):
    recording = open_recording([source], say=pytest.fail, with_transforms=bool(config.scale.fixed_frame), **options)
    with ResumableBag(out, "bag", {}, [source], resume=resume, say=lambda line: None) as bag:
        process_recording(Oracle(), Task(recording, source), bag, config, warn=lambda line: None)
    return out


def check(out):
    raw = read_messages(out, ["/perception/report"])
    last = [deserialize(data, kind) for _, kind, _, data in raw][-1]
    assert last.scale_source == "odometry", last.scale_note
    assert (last.scale, last.shift) == pytest.approx((SCALE, SHIFT), rel=0.03)
    found = depths(out)[2 * S + (FRAMES - 1) * PERIOD + 1]  # by the time of recording
    ratio = found / see(camera_at((FRAMES - 1) / 10))[1].reshape(-1)
    assert float(ratio.median()) == pytest.approx(1, abs=0.02)


def results(out):
    """All messages but the reports, which hold times."""
    found = (item for item in read_messages(out) if item[0] != "/perception/report")
    return [(topic, time_ns, deserialize(raw, kind)) for topic, kind, time_ns, raw in found]


@pytest.mark.parametrize(
    ("topic", "parameters", "options"),
    [
        ("/odometry", {}, {}),
        ("/wheels/odom", {"scale.source": "odometry"}, {"odometry_topic": "wheels/odom"}),
        ("/tf", {"scale.fixed_frame": "odom"}, {}),
    ],
)
def test_a_moving_camera_has_meters_by_the_poses_of_the_bag(tmp_path, topic, parameters, options):
    source = record(tmp_path / "in", topic)
    check(run(source, tmp_path / "out", Config().updated(parameters), **options))


def test_an_interrupted_run_follows_the_motion_as_if_it_had_not_been(tmp_path, monkeypatch):
    source, config = record(tmp_path / "in", "/odometry"), Config()
    expected = results(run(source, tmp_path / "whole", config))
    monkeypatch.setattr(offline, "CHECKPOINT_PERIOD", 0.0)
    write_frame = offline.write_frame

    def interrupted(bag, frame):
        if frame.stamp_ns == 2 * S + 5 * PERIOD:
            raise KeyboardInterrupt
        write_frame(bag, frame)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(offline, "write_frame", interrupted)
        run(source, tmp_path / "out", config)
    assert results(run(source, tmp_path / "out", config, resume=True)) == expected


def test_odometry_of_a_topic_that_has_none_is_refused_with_those_that_there_are(tmp_path):
    source = record(tmp_path / "in", "/wheels/odom")
    with pytest.raises(InputError, match="no odometry on /odom; odometry topics: /wheels/odom"):
        open_recording([source], odometry_topic="/odom")
    assert not open_recording([source]).reference
