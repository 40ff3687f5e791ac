"""A recording may be larger than memory."""

from __future__ import annotations

import tracemalloc

import numpy as np

from lotus2_ros.bags import BagWriter, open_recording
from lotus2_ros.bags.calibrations import CameraInfos, find_camera_infos
from lotus2_ros.bags.frames import camera_info_message, header, image_message
from lotus2_ros.bags.reader import open_reader
from lotus2_ros.geometry.camera import Camera
from test.bags.test_transforms import transforms

FRAMES, PERIOD = 60, 10**8
HEIGHT, WIDTH = 240, 320


def test_only_half_a_second_of_a_recording_is_in_memory(tmp_path):
    camera, rng = Camera.from_fov(WIDTH, HEIGHT, 60), np.random.default_rng(0)
    with BagWriter(tmp_path / "in.mcap") as bag:
        for stamp in range(PERIOD, (FRAMES + 1) * PERIOD, PERIOD):
            head = header(stamp, "eye")
            pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)  # which cannot be compressed
            bag.write("/tf", transforms(("odom", "eye", stamp * 1e-9, (0, 0, 0), (0, 0, 0, 1))), stamp)
            bag.write("/camera_info", camera_info_message(camera, head), stamp)
            bag.write("/reference/depth", image_message(pixels[..., 0].astype(np.float32), "32FC1", head), stamp)
            bag.write("/image", image_message(pixels, "rgb8", head), stamp)
            bag.flush()
    tracemalloc.start()
    try:
        frames = sum(frame.reference is not None for frame in open_recording([tmp_path / "in.mcap"]).frames())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert frames == FRAMES
    size = 7 * HEIGHT * WIDTH  # of a frame with its depth; half a second has six, in at most four copies
    assert peak < 25 * size < FRAMES / 2 * size


def test_of_equal_calibrations_the_first_and_the_last_are_kept(tmp_path):
    cameras = [Camera.from_fov(WIDTH, HEIGHT, fov) for fov in (60, 60, 60, 70, 60)]
    with BagWriter(tmp_path / "in.mcap") as bag:
        for stamp, camera in enumerate(cameras, start=1):
            info = camera_info_message(camera, header(stamp, "eye"))
            bag.write("/camera_info", info, stamp)
    with open_reader(tmp_path / "in.mcap") as reader:
        found = find_camera_infos(reader, "/image", None, info, rectified=False)
    assert [info.header.stamp.nanosec for info in found.infos] == [1, 3, 4, 5]
    everything = CameraInfos(infos=tuple(camera_info_message(c, header(s, "eye")) for s, c in enumerate(cameras, 1)))
    for stamp in range(7):
        np.testing.assert_array_equal(found.nearest(stamp).k, everything.nearest(stamp).k)
