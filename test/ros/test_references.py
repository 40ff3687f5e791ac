"""References: which one a frame gets, and which are rejected."""

from __future__ import annotations

import itertools
import math
import sys
import time
from array import array
from collections import Counter
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from rclpy.time import Time
from ros_messages import cloud_of, header_of
from sensor_msgs.msg import CompressedImage

from lotus2_ros.config import Config, ScaleConfig
from lotus2_ros.config.live import LiveConfig
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.ros.messages import tensor_to_image
from lotus2_ros.ros.references import References
from lotus2_ros.ros.transforms import Transforms

CAMERA = Camera.from_intrinsics(8, 6, 5.0, 6.0, 3.0, 2.0)
IN_FRONT = torch.tensor([[0.0, 0.0, 2.0]])
CONFIG = ScaleConfig(reference_slop=0.1, max_age=2.0)


class Rejections:
    """In place of a node's Diagnostics: what was rejected."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.texts: dict[str, str] = {}

    def reject(self, reason: str, text: str, frame: bool = True) -> None:
        assert not frame
        self.counts[reason] += 1
        self.texts[reason] = text


@pytest.fixture
def health() -> Rejections:
    return Rejections()


@pytest.fixture
def references(health) -> References:
    return References(health, LiveConfig(Config()), Transforms())


def send_depth(references: References, stamp: float, value: float = 1.0, frame: str = "camera") -> None:
    references.depth(tensor_to_image(torch.full((3, 4), value), "32FC1", header_of(stamp, frame)))


def stamps(references: References, *frames: float, config: ScaleConfig = CONFIG) -> list[float | None]:
    """The stamps of the references that frames of these get."""
    found = [references.for_frame(header_of(stamp), CAMERA, config) for stamp in frames]
    return [None if reference is None else pytest.approx(reference.stamp, abs=1e-6) for reference in found]


def test_a_frame_gets_the_nearest_in_time(references):
    for stamp in (1.0, 1.12, 1.2):
        send_depth(references, stamp)
    assert stamps(references, 1.15, 1.21) == [1.12, 1.2]


def test_several_frames_share_a_reference_of_their_time(references):
    send_depth(references, 1.0)
    assert stamps(references, 0.95, 1.0, 1.05) == [1.0, 1.0, 1.0]


def test_a_late_reference_is_given_once_and_older_ones_no_more(references):
    for stamp in (1.0, 1.5):
        send_depth(references, stamp)
    assert stamps(references, 2.0, 2.1) == [1.5, None]
    send_depth(references, 1.8)
    assert stamps(references, 2.2, 2.3) == [1.8, None]


def test_a_sensor_whose_clock_is_behind_is_named_and_a_bag_that_starts_over_is_not(references, health):
    assert stamps(references, 100.0) == [None]
    send_depth(references, 1.0)
    assert stamps(references, 100.1) == [None] and health.counts == {"reference_past": 1}
    assert "at most 2 s behind the newest image's, got 99.100 s" in health.texts["reference_past"]
    send_depth(references, 1.0)
    assert stamps(references, 1.0) == [1.0] and health.counts == {"reference_past": 1}


def test_a_late_reference_older_than_max_age_hides_no_other_source(references):
    send_depth(references, 1.0)
    references.points(cloud_of(IN_FRONT, header_of(4.0)))
    assert stamps(references, 4.0) == [4.0]


def test_a_fast_sensor_keeps_what_belongs_to_an_image_that_is_late(references):
    for number in range(400):
        references.points(cloud_of(IN_FRONT, header_of(1 + 0.005 * number)))
    assert stamps(references, 2.7, 2.0) == [2.7, 2.0]


def test_large_measurements_are_kept_as_long_as_memory_is_spared(references):
    for number in range(20):
        references.depth(tensor_to_image(torch.ones(1000, 1000), "32FC1", header_of(1 + 0.05 * number)))
    assert stamps(references, 1.5, 1.3) == [1.5, None]


def test_a_reference_of_a_frame_to_come_waits_for_it(references):
    send_depth(references, 2.0)
    assert stamps(references, 1.0, 1.95) == [None, 2.0]


def test_depth_comes_before_points_and_a_source_may_be_chosen(references):
    send_depth(references, 1.0)
    references.points(cloud_of(IN_FRONT, header_of(1.0)))
    found = {
        source: references.for_frame(header_of(1.0), CAMERA, ScaleConfig(source=source))
        for source in ("auto", "reference_depth", "reference_points", "camera_height", "none")
    }
    found["points last"] = references.for_frame(header_of(1.0), CAMERA, CONFIG, refused="reference_points")
    found["depth last"] = references.for_frame(header_of(1.0), CAMERA, CONFIG, refused="reference_depth")
    sources = {name: reference and reference.source for name, reference in found.items()}
    assert sources == {
        "auto": "reference_depth", "reference_depth": "reference_depth", "reference_points": "reference_points",
        "camera_height": None, "none": None, "points last": "reference_depth", "depth last": "reference_points",
    }  # fmt: skip


def test_points_take_over_where_there_is_no_depth(references):
    references.points(cloud_of(IN_FRONT, header_of(1.0)))
    reference = references.for_frame(header_of(1.0), CAMERA, CONFIG)
    assert reference.source == "reference_points" and tuple(reference.depth.shape) == (6, 8)
    assert float(reference.depth[2, 3]) == 2.0 and torch.isfinite(reference.depth).sum() == 1


def test_points_are_projected_once_per_camera(references):
    references.points(cloud_of(IN_FRONT, header_of(1.0)))
    first, second = (references.for_frame(header_of(1.0), CAMERA, CONFIG) for _ in range(2))
    assert first is second
    wide = references.for_frame(header_of(1.0), CAMERA.resize(16, 12), CONFIG)
    assert tuple(wide.depth.shape) == (12, 16)


def test_a_transform_takes_points_to_the_optical_frame(references):
    """A lidar of body axes (x forward, y left, z up) half a meter above the camera."""
    references.points(cloud_of(torch.tensor([[4.0, 0.8, -0.5]]), header_of(1.0, "lidar")))
    config = ScaleConfig(points_transform="0 -0.5 0 0.5 -0.5 0.5 0.5")
    depth = references.for_frame(header_of(1.0), CAMERA, config).depth
    # x right = -left, y down = -up - 0.5, z = forward
    assert torch.nonzero(torch.isfinite(depth)).tolist() == [[2, 2]] and float(depth[2, 2]) == 4.0


@pytest.mark.parametrize("frame", ["camera", ""])
def test_points_without_a_frame_or_in_the_images_need_no_transform(references, health, frame):
    references.points(cloud_of(IN_FRONT, header_of(1.0, frame)))
    assert references.for_frame(header_of(1.0), CAMERA, CONFIG) is not None and not health.counts


def test_what_is_from_the_future_is_rejected_once(references, health):
    send_depth(references, 3.5)
    assert stamps(references, 1.0, 1.1, 3.5) == [None, None, None]
    assert health.counts == {"reference_future": 1}
    assert "at most 2 s ahead of the newest image's, got 2.500 s" in health.texts["reference_future"]


def test_after_a_jump_of_the_clock_nothing_is_rejected(references, health):
    send_depth(references, 100.0)
    assert stamps(references, 100.0) == [100.0]
    send_depth(references, 100.1)
    assert stamps(references, 1.0) == [None]
    send_depth(references, 1.1)
    assert stamps(references, 1.1, 100.0) == [1.1, None] and not health.counts


def test_depth_in_another_frame_is_rejected_also_when_it_came_before_the_first_image(references, health):
    send_depth(references, 1.0, frame="other")
    send_depth(references, 1.05, frame="")
    assert stamps(references, 1.0, 1.0) == [1.05, 1.05]
    assert health.counts == {"reference_frame": 1}
    assert "'camera', got 'other'" in health.texts["reference_frame"]


def test_without_tf2_points_of_another_frame_are_rejected(references, health, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_ros", None)  # as where it is not installed
    references.points(cloud_of(IN_FRONT, header_of(1.0, "lidar")))
    assert stamps(references, 1.0, 1.0) == [None, None] and health.counts == {"reference_transform": 1}
    text = health.texts["reference_transform"]
    assert "from 'lidar' to 'camera'" in text and "set scale.points_transform" in text


class Tf:
    """In place of tf2_ros, which wheels do not bring: transforms become known when a test says so."""

    class TransformException(Exception):  # noqa: N818 - tf2's name
        pass

    def __init__(self) -> None:
        self.known_from, self.known_until = -math.inf, 0.0
        self.TransformListener = lambda buffer, node: SimpleNamespace(unregister=lambda: None)

    def Buffer(self) -> Tf:  # noqa: N802 - tf2's name
        return self

    def clear(self) -> None:
        self.known_from = -math.inf

    def lookup_transform(self, target: str, source: str, time: Time) -> SimpleNamespace:
        if not self.known_from <= time.nanoseconds * 1e-9 <= self.known_until:
            raise Tf.TransformException("Lookup would require extrapolation")
        zero = SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0)
        return SimpleNamespace(transform=SimpleNamespace(translation=zero, rotation=zero))


@pytest.fixture
def tf(monkeypatch) -> Tf:
    tf = Tf()
    monkeypatch.setitem(sys.modules, "tf2_ros", tf)
    return tf


@pytest.mark.parametrize("behind", [0.05, 0.35])
def test_points_wait_for_a_transform_that_is_behind(references, health, tf, behind):
    """A lidar and a camera of 10 Hz with the same stamps."""
    used = []
    for number in range(100):
        stamp = 1 + 0.1 * number
        tf.known_until = stamp - behind
        references.points(cloud_of(IN_FRONT, header_of(stamp, "lidar")))
        used += stamps(references, stamp, config=ScaleConfig(reference_slop=0.02))
    assert sum(stamp is not None for stamp in used) >= 100 - math.ceil(behind / 0.1) - 1
    assert not health.counts


@pytest.mark.parametrize(("back", "starts_over"), [(19.0, True), (0.5, False)])
def test_transforms_start_over_with_a_bag(references, tf, back, starts_over):
    """After a jump back tf2 refuses what it hears as too old; two frames in the wrong order are no jump."""
    tf.known_from, tf.known_until = 20.0, 100.0
    for stamp, expected in ((20.0, 20.0), (20.0 - back, 20.0 - back if starts_over else None)):
        references.points(cloud_of(IN_FRONT, header_of(stamp, "lidar")))
        assert stamps(references, stamp, config=ScaleConfig(reference_slop=0.02)) == [expected]


def test_points_whose_transform_never_comes_are_rejected_once(references, health, tf, monkeypatch):
    clock = itertools.count(0.0, 0.3)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    references.points(cloud_of(IN_FRONT, header_of(1.0, "lidar")))
    assert stamps(references, *[1.0] * 6) == [None] * 6
    assert health.counts == {"reference_transform": 1}
    assert "from 'lidar' to 'camera' on /tf" in health.texts["reference_transform"]


def test_points_that_newer_ones_push_out_before_their_transform_came_are_rejected(references, health, tf):
    for number in range(15):
        references.points(cloud_of(IN_FRONT, header_of(1 + 0.2 * number, "lidar")))
        assert stamps(references, 1 + 0.2 * number) == [None]
    assert health.counts == {"reference_transform": 5}


def test_points_of_a_stamp_before_time_are_rejected(references, health, tf):
    header = header_of(1.0, "lidar")
    header.stamp.sec = -5
    references.points(cloud_of(IN_FRONT, header))
    assert stamps(references, -5.0) == [None] and health.counts == {"reference_transform": 1}


def test_a_bad_measurement_does_not_hide_a_good_one_of_its_time(references, health):
    references.points(cloud_of(IN_FRONT, header_of(1.0)))
    references.points(cloud_of(-IN_FRONT, header_of(1.02)))
    assert stamps(references, 1.02) == [1.0] and health.counts == {"reference_empty": 1}


def test_compressed_depth_is_a_reference(references, health):
    depth = np.full((3, 4), 2500, np.uint16)
    data = bytes(12) + cv2.imencode(".png", depth)[1].tobytes()
    references.depth(CompressedImage(header=header_of(1.0), format="16UC1; compressedDepth png", data=array("B", data)))
    assert float(references.for_frame(header_of(1.0), CAMERA, CONFIG).depth[0, 0]) == 2.5
    references.depth(CompressedImage(header=header_of(1.0), format="16UC1; compressedDepth foo", data=array("B", b"x")))
    assert health.counts == {"reference_data": 1}


def test_frames_of_equal_and_of_earlier_stamps_get_references(references, health):
    send_depth(references, 1.0)
    assert stamps(references, 1.0, 1.0, 1.0) == [1.0] * 3
    assert stamps(references, 0.95, 1.02) == [1.0] * 2 and not health.counts


def test_a_transform_without_a_direction_is_rejected(references, health):
    references.points(cloud_of(IN_FRONT, header_of(1.0, "lidar")))
    assert stamps(references, 1.0, config=ScaleConfig(points_transform="0 0 0 0 0 0 0")) == [None]
    assert "quaternion with a length above 0" in health.texts["reference_transform"]


def test_points_of_which_the_camera_sees_none_are_rejected(references, health):
    references.points(cloud_of(-IN_FRONT, header_of(1.0)))
    assert stamps(references, 1.0) == [None] and health.counts == {"reference_empty": 1}
    assert "got 1, none of them in its image" in health.texts["reference_empty"]
