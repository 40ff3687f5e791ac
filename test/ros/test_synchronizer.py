"""Images and camera_info: which image gets which, in whatever order they arrive."""

from __future__ import annotations

import random
import time
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lotus2_ros.msg import FrameReport
from rclpy.executors import SingleThreadedExecutor
from ros_messages import header_of
from sensor_msgs.msg import CameraInfo, Image

from lotus2_ros.config import Config, InputConfig
from lotus2_ros.config.live import LiveConfig
from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.ros.messages import tensor_to_image
from lotus2_ros.ros.subscriptions import subscribe, take_all
from lotus2_ros.ros.synchronizer import IMAGE_QUEUE, Synchronizer

PERIOD = 0.033


class Counters:
    """The part of Diagnostics that a synchronizer calls."""

    def __init__(self) -> None:
        self.received = 0
        self.rejected: list[tuple[str, str]] = []

    def image_received(self) -> None:
        self.received += 1

    def reject(self, reason: str, text: str) -> None:
        self.rejected.append((reason, text))


class Setup:
    """A synchronizer with what it delivered: the stamps of images, and those of their camera_info."""

    def __init__(self, **parameters) -> None:
        self.counters = Counters()
        self.delivered: list[tuple[float, float | None]] = []
        config = Config(input=InputConfig(**parameters))
        self.synchronizer = Synchronizer(LiveConfig(config), self._deliver, self.counters)

    def _deliver(self, frame) -> None:
        def seconds(message) -> float:
            return message.header.stamp.sec + round(message.header.stamp.nanosec * 1e-9, 6)

        self.delivered.append((seconds(frame.image), None if frame.info is None else seconds(frame.info)))

    def image(self, *stamps: float) -> None:
        for stamp in stamps:
            self.synchronizer.image(Image(header=header_of(stamp)))

    def info(self, *stamps: float, fx: float = 40.0) -> None:
        for stamp in stamps:
            self.synchronizer.info(CameraInfo(header=header_of(stamp), k=[fx, *[0.0] * 8]))

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.counters.rejected]


@pytest.mark.parametrize("late", range(IMAGE_QUEUE))
def test_camera_info_some_frames_late_reaches_every_image(late):
    setup = Setup()
    for frame in range(300 + late):
        if frame < 300:
            setup.image(frame)
        if frame >= late:
            setup.info(frame - late)
    assert setup.delivered == [(stamp, stamp) for stamp in range(300)]
    assert not setup.counters.rejected and setup.synchronizer.dropped == 0


@pytest.mark.parametrize("early", [1, 5, 20])
def test_camera_info_some_frames_early_reaches_every_image(early):
    setup = Setup()
    for frame in range(100):
        setup.info(frame)
        if frame >= early:
            setup.image(frame - early)
    assert setup.delivered == [(stamp, stamp) for stamp in range(100 - early)]


@given(st.integers(0, 10**6))
def test_in_any_order_every_image_is_accounted_for_and_none_goes_back_in_time(seed):
    """Both topics jitter by up to five frames, so images overtake camera_info and each other's."""
    jitter, setup = random.Random(seed), Setup()
    events = [(frame + jitter.uniform(0, 5), setup.info, frame) for frame in range(40)]
    events += [(frame + 0.5, setup.image, frame) for frame in range(40)]
    for _, send, frame in sorted(events, key=lambda event: event[0]):
        send(frame)
    delivered = [stamp for stamp, _ in setup.delivered]
    assert delivered == sorted(delivered) and all(image == info for image, info in setup.delivered)
    assert not setup.counters.rejected and len(delivered) + setup.synchronizer.dropped == 40


def test_an_image_without_camera_info_is_rejected_after_the_queue():
    setup = Setup()
    setup.info(*range(100, 103))
    setup.image(*range(IMAGE_QUEUE))
    assert not setup.texts
    setup.image(50)
    assert setup.counters.rejected[0][0] == "camera_info_missing" and len(setup.texts) == 1
    assert "within 0 s of the image's stamp 0.000000, the nearest is +100.000000 s off" in setup.texts[0]


def test_a_lost_camera_info_costs_its_own_image_only():
    setup = Setup()
    for frame in range(50):
        setup.image(frame)
        if frame != 7:
            setup.info(frame)
    assert [stamp for stamp, _ in setup.delivered] == [stamp for stamp in range(50) if stamp != 7]
    assert len(setup.texts) == 1 and "stamp 7.000000" in setup.texts[0]


def test_without_any_camera_info_the_text_names_what_helps():
    setup = Setup()
    setup.image(*range(IMAGE_QUEUE + 1))
    assert setup.texts == [
        "expected a camera_info with each image, got none; publish it, or set input.fov to go without"
    ]


def test_within_the_slop_the_nearest_is_taken_and_an_equal_stamp_goes_first():
    setup = Setup(sync_slop=0.02)
    setup.info(1.0, 1.03, 1.045)
    setup.image(1.015, 1.045, 1.036, 1.07)
    assert setup.delivered == [(1.015, 1.0), (1.045, 1.045), (1.036, 1.03)]
    setup.info(1.055)
    assert setup.delivered[-1] == (1.07, 1.055)


def test_stamps_that_differ_by_a_nanosecond_are_not_equal():
    """In float64 seconds of today they are."""
    setup = Setup()
    image, info = header_of(1_700_000_000), header_of(1_700_000_000)
    info.stamp.nanosec += 1
    setup.synchronizer.info(CameraInfo(header=info, k=[40.0, *[0.0] * 8]))
    setup.synchronizer.image(Image(header=image))
    assert not setup.delivered


def test_equal_stamps_are_all_delivered():
    """Some drivers never set the stamp."""
    setup = Setup()
    for _ in range(3):
        setup.info(0)
        setup.image(0)
    assert setup.delivered == [(0, 0)] * 3


def test_when_a_bag_starts_over_its_images_are_delivered_again():
    setup = Setup()
    for _ in range(2):
        for frame in range(50):
            setup.image(frame)
            setup.info(frame)
    assert [stamp for stamp, _ in setup.delivered] == 2 * list(range(50)) and not setup.counters.rejected


def test_uncalibrated_camera_info_gives_way_to_the_field_of_view():
    setup = Setup(fov=70.0)
    setup.info(0, fx=0.0)
    setup.image(0)
    setup.info(1)  # somebody calibrated it
    setup.image(1)
    setup.info(2, fx=0.0)
    setup.image(2)
    assert setup.delivered == [(0, None), (1, 1), (2, None)]


def test_without_a_field_of_view_uncalibrated_camera_info_goes_to_where_it_is_rejected():
    setup = Setup()
    setup.info(0, fx=0.0)
    setup.image(0)
    assert setup.delivered == [(0, 0)]


@pytest.mark.ros
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_an_executor_that_is_too_slow_rejects_no_image(node_with, turns):
    """Some turns of the executor per frame, each of which serves one message: images are overwritten, and camera_info
    would pile up."""
    camera, node, setup = node_with(), node_with(), Setup()
    callbacks = dict.fromkeys(("reference/depth", "reference/points"), lambda message: None)
    callbacks |= {"image": setup.synchronizer.image, "camera_info": setup.synchronizer.info}
    subscriptions = subscribe(node, Config(), callbacks)
    setup.synchronizer.take_infos = partial(take_all, subscriptions["camera_info"])
    infos, images = camera.create_publisher(CameraInfo, "camera_info", 50), camera.create_publisher(Image, "image", 5)
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    deadline = time.monotonic() + allowed(30)
    while not (infos.get_subscription_count() and images.get_subscription_count()):
        assert time.monotonic() < deadline, "no discovery"
        executor.spin_once(timeout_sec=0.02)
    for frame in range(150):
        header = header_of(frame)
        infos.publish(CameraInfo(header=header, k=[40.0, *[0.0] * 8]))
        images.publish(Image(header=header))
        for _ in range(turns):
            executor.spin_once(timeout_sec=0.01)
    while len(setup.delivered) < setup.counters.received and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.02)
    executor.shutdown()
    del subscriptions
    assert setup.counters.received > 20 and not setup.counters.rejected
    assert len(setup.delivered) + setup.synchronizer.dropped == setup.counters.received
    assert all(image == info for image, info in setup.delivered)


@pytest.mark.ros
@pytest.mark.parametrize("late", [0, 3])
def test_under_load_no_image_is_rejected_whose_camera_info_was_published(lasting, late):
    """A hundred small images as fast as they can be sent, while the model keeps the node's other thread busy."""
    client, _ = lasting
    image = torch.zeros(48, 64, 3, dtype=torch.uint8)
    client.subscribe(Image, "disparity/image")
    client.subscribe(FrameReport, "report")
    before = client.warm_up(image, "disparity/image")
    headers = [header_of(100 + PERIOD * number) for number in range(100)]
    for number in range(len(headers) + late):
        if number < len(headers):
            client.publish("image", tensor_to_image(image, "rgb8", headers[number]))
        if number >= late:
            header = headers[number - late]
            client.publish(
                "camera_info", CameraInfo(header=header, width=64, height=48, k=[40.0, 0, 31, 0, 40, 23, 0, 0, 1])
            )
        client.executor.spin_once(timeout_sec=0.005)
    last = headers[-1]
    client.until(lambda: any(r.header == last for r in client.received["report"]), "report of the last image")
    report = client.received["report"][-1]
    reasons = dict(zip(report.rejection_reasons, report.rejection_counts, strict=True))
    assert "camera_info_missing" not in reasons and report.frames_rejected == before.frames_rejected


@pytest.mark.ros
def test_frames_of_equal_and_of_earlier_stamps_are_processed(lasting):
    client, _ = lasting
    image = torch.zeros(48, 64, 3, dtype=torch.uint8)
    client.subscribe(Image, "disparity/image")
    client.subscribe(FrameReport, "report")
    before = client.warm_up(image, "disparity/image")
    newest = before
    for stamp in (100, 100, 99, 50, 50, 101):
        client.send_frame(image, stamp)
        client.until(
            lambda done=newest.frames_processed: any(r.frames_processed > done for r in client.received["report"]),
            f"report of {stamp} s",
        )
        newest = max(client.received["report"], key=lambda report: report.frames_processed)
        assert newest.header.stamp.sec == stamp and newest.frames_rejected == before.frames_rejected
