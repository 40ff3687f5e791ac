"""What the running node computes, and when, seen from another process."""

import pytest
import torch
from lotus2_ros.msg import FrameReport
from sensor_msgs.msg import Image

pytestmark = pytest.mark.ros
HEIGHT, WIDTH = 36, 52
IMAGE = torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


COUNTING = """
import sys
from lotus2_ros.model.lotus2.base import Lotus2
from lotus2_ros.ros.node import main
decode = Lotus2.decode
def counting(self, latents):
    print(f"decoding {len(latents)}", flush=True)
    return decode(self, latents)
Lotus2.decode = counting
sys.exit(main())
"""


def test_only_what_is_subscribed_to_is_computed(start, client):
    node = start({"sharp.period": 0.0, "model.warm_up": "[none]"}, command=("-c", COUNTING))
    client.subscribe(FrameReport, "report")
    client.subscribe(Image, "normals/color")
    before = client.warm_up(IMAGE, "normals/color")
    for stamp in (2, 3):
        client.send_and_wait(IMAGE, stamp)
    report = client.received["report"][-1]
    assert report.frames_processed - before.frames_processed == 2 and report.frames_sharpened == 0
    assert "align" not in report.latency_names  # no depth was computed
    decoded = [line for line in node.output().splitlines() if line.startswith("decoding")]
    assert len(decoded) == report.frames_processed and set(decoded) == {"decoding 1"}


OVERLAPPING = """
import sys, threading
from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.ros import publishers
from lotus2_ros.ros.node import main
predict, message_of = Estimator.predict, publishers.message_of
count, second = [], threading.Event()
def predicting(self, *args, **kwargs):
    count.append(1)
    if len(count) == 2:
        second.set()
    return predict(self, *args, **kwargs)
def making(name, payload, header):
    print("overlapped" if second.wait(allowed(30)) else "one after the other", flush=True)
    return message_of(name, payload, header)
Estimator.predict, publishers.message_of = predicting, making
sys.exit(main())
"""


def test_a_frame_is_sent_while_the_next_is_predicted(start, client):
    """The messages of the first frame are made only when the second is being predicted."""
    node = start({"sharp.enabled": False, "model.warm_up": "[none]"}, command=("-c", OVERLAPPING))
    client.subscribe(Image, "disparity/image")
    stamps = iter(range(1, 1000))
    client.repeat(
        lambda: client.send_frame(IMAGE, next(stamps)), lambda: client.received["disparity/image"], "disparity"
    )
    assert "overlapped" in node.output() and "one after" not in node.output()


def test_the_first_image_of_a_size_is_announced_once(start, client):
    node = start({"model.warm_up": f"[{WIDTH}x{HEIGHT}]"})
    client.subscribe(Image, "disparity/image")
    client.subscribe(FrameReport, "report")
    client.warm_up(IMAGE, "disparity/image")
    assert "warming up" not in node.output()
    for stamp in (2, 3):
        client.send_frame(IMAGE[:24].repeat(1, 2, 1), stamp)
        client.until(lambda s=stamp: any(r.header.stamp.sec == s for r in client.received["report"]), "report")
    assert node.output().count("warming up") == 1
    assert f"first image of {2 * WIDTH}x24: warming up" in node.output()


def test_frames_are_dropped_and_counted_when_they_come_too_fast(start, client):
    start()
    client.subscribe(Image, "disparity/image")
    client.subscribe(FrameReport, "report")
    before = client.warm_up(IMAGE, "disparity/image")

    def burst():
        for _ in range(40):
            client.send_frame(IMAGE, 2)

    def dropped():
        return any(report.frames_dropped > before.frames_dropped for report in client.received["report"])

    # Of a burst that the node was too busy to look at, best-effort delivery leaves one frame; then another is sent.
    client.repeat(burst, dropped, "dropped frame")
    client.send_and_wait(IMAGE, 3)
    report = client.received["report"][-1]
    # What delivery lost never reached the node; of the rest nothing is unaccounted for.
    names = "received", "processed", "dropped", "rejected"
    received, *answered = (getattr(report, f"frames_{n}") - getattr(before, f"frames_{n}") for n in names)
    assert received == sum(answered)
