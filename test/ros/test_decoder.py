"""The thread that decodes compressed images."""

import threading
import time
from array import array

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from lotus2_ros.config import Config
from lotus2_ros.config.live import LiveConfig
from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.ros import decoder
from lotus2_ros.ros.decoder import DEPTH, DecoderThread
from lotus2_ros.ros.synchronizer import CameraFrame

TIMEOUT = allowed(30.0)  # seconds; only ever reached when a test fails
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


def frame(stamp: int, format: str = "png", data: bytes | None = None) -> CameraFrame:
    data = cv2.imencode(".png", PIXELS[..., ::-1])[1].tobytes() if data is None else data
    message = CompressedImage(format=format, data=array("B", data))
    message.header = Header(frame_id="camera")
    message.header.stamp.sec = stamp
    return CameraFrame(message, None, time.perf_counter())


class Decoding:
    """A decoder thread, and what came of its frames."""

    def __init__(self) -> None:
        self.delivered, self.rejected, self.depth = [], [], []
        self.answered = threading.Semaphore(0)
        self.thread = DecoderThread(self.deliver, self.take_depth, self.reject, LiveConfig(Config()), self.fail)
        self.thread.start()

    def deliver(self, frame: CameraFrame) -> None:
        self.delivered.append(frame)
        self.answered.release()

    def take_depth(self, message: CompressedImage) -> None:
        self.depth.append((message.header.stamp.sec, [frame.image.header.stamp.sec for frame in self.delivered]))
        self.answered.release()

    def reject(self, reason: str, text: str) -> None:
        self.rejected.append((reason, text))
        self.answered.release()

    def fail(self, error: Exception) -> None:
        raise AssertionError("expected the thread to go on") from error

    def wait(self) -> None:
        assert self.answered.acquire(timeout=TIMEOUT)


@pytest.fixture
def decoding():
    decoding = Decoding()
    yield decoding
    assert decoding.thread.stop(TIMEOUT)


def test_a_frame_comes_with_its_pixels_in_rgb(decoding):
    decoding.thread.queue.put("camera", frame(3))
    decoding.wait()
    (result,) = decoding.delivered
    np.testing.assert_array_equal(result.pixels.numpy(), PIXELS)
    assert result.image.header.stamp.sec == 3


def test_bad_images_are_rejected_and_the_thread_goes_on(decoding, monkeypatch):
    decoding.thread.queue.put("camera", frame(1, data=b"\xff\xd8\xff nothing more"))
    decoding.wait()
    monkeypatch.setattr(decoder, "image_to_tensor", lambda message, config: 1 // 0)
    decoding.thread.queue.put("camera", frame(2))
    decoding.wait()
    monkeypatch.undo()
    decoding.thread.queue.put("camera", frame(3))
    decoding.wait()
    assert [reason for reason, _ in decoding.rejected] == ["image_data", "unexpected"]
    assert [result.image.header.stamp.sec for result in decoding.delivered] == [3]


def test_while_a_large_image_decodes_the_newest_waits_and_others_are_counted(decoding, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    decode = decoder.image_to_tensor

    def slow(message, config):
        begun.set()
        assert go_on.wait(TIMEOUT)
        return decode(message, config)

    monkeypatch.setattr(decoder, "image_to_tensor", slow)
    decoding.thread.queue.put("camera", frame(1))
    assert begun.wait(TIMEOUT)
    for stamp in (2, 3, 4):
        decoding.thread.queue.put("camera", frame(stamp))
    assert not decoding.delivered and decoding.thread.queue.dropped == {"camera": 2}
    go_on.set()
    for _ in range(2):
        decoding.wait()
    assert [result.image.header.stamp.sec for result in decoding.delivered] == [1, 4]


def test_depth_goes_before_the_frame_that_waits_and_keeps_none_waiting_for_ever(decoding, monkeypatch):
    begun, go_on = threading.Event(), threading.Semaphore(0)

    def held(message, config):
        begun.set()
        assert go_on.acquire(timeout=TIMEOUT)
        return PIXELS

    monkeypatch.setattr(decoder, "image_to_tensor", held)
    decoding.thread.queue.put("camera", frame(1))
    assert begun.wait(TIMEOUT)
    decoding.thread.queue.put(DEPTH, frame(2).image)
    decoding.thread.queue.put("camera", frame(2))
    go_on.release(2)
    for _ in range(3):
        decoding.wait()
    assert decoding.depth == [(2, [1])]  # after the first frame, before the second
    assert [result.image.header.stamp.sec for result in decoding.delivered] == [1, 2]
