"""What a small camera records."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from lotus2_ros.bags import RecordedFrame, open_recording
from lotus2_ros.bags.frames import camera_info_message, header, image_message, stamp_ns, typestore
from lotus2_ros.geometry.camera import Camera


class Recorder:
    height, width = 24, 32
    camera = Camera.from_intrinsics(width, height, fx=30.0, fy=31.0, cx=14.0, cy=13.0)

    def picture(self, index: int = 0, width: int = width) -> np.ndarray:
        """(H,W,3) whose red channel grows along x, green along y; blue is the index."""
        v, u = np.mgrid[: self.height, :width]
        return np.stack([u * 5, v * 5, np.full_like(u, index * 10)], axis=-1).astype(np.uint8)

    def write(
        self,
        path: Path,
        plugin: StoragePlugin,
        messages: list,
        compression: CompressionMode = CompressionMode.NONE,
        chunk: int = 1 << 30,
    ) -> Path:
        """A rosbag2 folder of (topic, message) pairs, 0.1 s apart. chunk: messages of a chunk of an MCAP file."""
        writer = Writer(path, version=9, storage_plugin=plugin)
        writer.set_compression(compression, CompressionFormat.ZSTD)
        connections: dict = {}
        with writer:
            for index, (topic, item) in enumerate(messages):
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, item.__msgtype__, typestore=typestore())
                raw = typestore().serialize_cdr(item, item.__msgtype__)
                writer.write(connections[topic], index * 10**8, raw)
                if index % chunk == chunk - 1:
                    writer.storage.close_chunk()
        return path

    def messages(self, frames: int = 2) -> list:
        """Calibration, reference and image of a camera; the calibration's stamps are 3 ms late."""
        messages: list = []
        for index in range(frames):
            stamp = (index + 1) * 10**9
            depth = np.full((self.height, self.width), 2.0 + index, np.float32)
            messages += [
                ("/cam/camera_info", camera_info_message(self.camera, header(stamp + 3_000_000, "eye"))),
                ("/reference/depth", image_message(depth, "32FC1", header(stamp, "eye"))),
                ("/cam/image_raw", image_message(self.picture(index), "rgb8", header(stamp, "eye"))),
            ]
        return messages

    def frames(self, folder: Path, count: int) -> Iterator[RecordedFrame]:
        """The same as frames, by way of a bag in the folder."""
        if not (folder / "bag").exists():
            self.write(folder / "bag", StoragePlugin.MCAP, self.messages(8))
        return islice(open_recording([folder / "bag"]).frames(), count)

    def check(self, path: Path) -> None:
        recording = open_recording([path])
        frames = list(recording.frames())
        assert [frame.stamp_ns for frame in frames] == [10**9, 2 * 10**9]
        for index, frame in enumerate(frames):
            assert frame.image.header.frame_id == frame.camera_info.header.frame_id == "eye"
            assert stamp_ns(frame.camera_info) == stamp_ns(frame.image) == frame.stamp_ns
            np.testing.assert_array_equal(frame.image.data.reshape(self.height, self.width, 3), self.picture(index))
            np.testing.assert_allclose(frame.camera_info.k, [30, 0, 14, 0, 31, 13, 0, 0, 1])
            assert frame.reference.data.view(np.float32)[0] == 2.0 + index
        assert recording.camera == "CameraInfo of the bag"


@pytest.fixture(scope="session")
def recorder() -> Recorder:
    return Recorder()
