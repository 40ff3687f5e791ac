"""A whole recording may be larger than memory: what is read, computed and written is let go of."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import Future

import numpy as np
import pytest

pytest.importorskip("rclpy")

from lotus2_ros.bags import BagWriter, open_recording
from lotus2_ros.bags.frames import camera_info_message, header, image_message
from lotus2_ros.config import Config
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.facts import ModelFacts
from lotus2_ros.inference.work import Prediction, Request
from lotus2_ros.ros.offline import Task
from test.ros.test_offline import run

FRAMES, PERIOD, HEIGHT, WIDTH = 60, 10**8, 120, 160


class Noise:
    """Workers that predict at once."""

    facts = ModelFacts("noise", "float32", "cpu", (), False)
    capacity = 4

    def submit(self, request: Request) -> Future[Prediction]:
        disparity = np.random.default_rng(request.index).random((HEIGHT, WIDTH), np.float32)
        future: Future[Prediction] = Future()
        future.set_result(Prediction({"disparity": disparity}, {}))
        return future


def test_memory_does_not_grow_with_the_recording(tmp_path):
    camera, rng = Camera.from_fov(WIDTH, HEIGHT, 60), np.random.default_rng(0)
    with BagWriter(tmp_path / "in.mcap") as bag:
        for stamp in range(PERIOD, (FRAMES + 1) * PERIOD, PERIOD):
            head = header(stamp, "eye")
            pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)  # which cannot be compressed
            depth = rng.uniform(1, 9, (HEIGHT, WIDTH)).astype(np.float32)
            bag.write("/camera_info", camera_info_message(camera, head), stamp)
            bag.write("/reference/depth", image_message(depth, "32FC1", head), stamp)
            bag.write("/image", image_message(pixels, "rgb8", head), stamp)
            bag.flush()
    source, peaks = tmp_path / "in.mcap", []
    for count in (3, FRAMES // 3, FRAMES):  # the first also for what is allocated once
        task = Task(open_recording([source], limit=count), source)
        tracemalloc.start()
        try:
            run(source, tmp_path / f"{count}.mcap", Noise(), Config(), task)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[2] < 1.25 * peaks[1] and peaks[2] < source.stat().st_size, peaks
