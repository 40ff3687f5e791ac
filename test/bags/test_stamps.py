"""Stamps that jump: the frames keep them, and the order of their recording."""

from __future__ import annotations

import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from lotus2_ros.bags import open_recording
from lotus2_ros.bags.frames import header, image_message, message, stamp_ns, typestore
from lotus2_ros.bags.recorded import LAST_STAMP_NS

SECOND = 10**9
YEAR_2026 = 1_780_000_000 * SECOND


def record(recorder, path, stamps, start):
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = None
        for index, stamp in enumerate(stamps):
            item = image_message(recorder.picture(index), "rgb8", header(stamp, "eye"))
            connection = connection or writer.add_connection("/image", item.__msgtype__, typestore=typestore())
            writer.write(connection, start + index * SECOND // 10, typestore().serialize_cdr(item, item.__msgtype__))
    return path


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        # Simulated time begins at 0, which is no stamp: the first is 0.1 s before the second, not in 2026.
        ([0, SECOND // 10, 2 * SECOND // 10], [1, SECOND // 10, 2 * SECOND // 10]),
        # No stamps at all: the time of the recording.
        ([0, 0], [YEAR_2026, YEAR_2026 + SECOND // 10]),
        # A clock that is set, equal and backward stamps are kept.
        ([SECOND, YEAR_2026, YEAR_2026, SECOND], [SECOND, YEAR_2026, YEAR_2026, SECOND]),
    ],
    ids=["simulated", "none", "jumps"],
)
def test_stamps_are_kept_and_made_up_only_where_they_are_unset(recorder, tmp_path, stamps, expected):
    frames = list(open_recording([record(recorder, tmp_path / "bag", stamps, YEAR_2026)]).frames())
    assert [frame.stamp_ns for frame in frames] == expected
    assert [stamp_ns(frame.image) for frame in frames] == [stamp_ns(frame.camera_info) for frame in frames] == expected
    assert [frame.image.data[2] for frame in frames] == [10 * index for index in range(len(stamps))]
    assert [frame.time_ns - YEAR_2026 for frame in frames] == [index * SECOND // 10 for index in range(len(stamps))]


@pytest.mark.parametrize(
    ("seconds", "nanoseconds", "expected"),
    [(5, 4 * SECOND, 9 * SECOND), (2**31 - 1, 2**32 - 1, LAST_STAMP_NS), (-(2**31), 0, -(2**31) * SECOND)],
)
def test_stamps_that_no_clock_gives_can_be_written(recorder, tmp_path, seconds, nanoseconds, expected):
    image = image_message(recorder.picture(), "rgb8", header(SECOND, "eye"))
    image.header.stamp = message("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)
    (frame,) = open_recording([recorder.write(tmp_path / "bag", StoragePlugin.MCAP, [("/image", image)])]).frames()
    assert frame.stamp_ns == stamp_ns(frame.image) == expected
    typestore().serialize_cdr(frame.image, frame.image.__msgtype__)
