"""Damaged bags: what is there is read, anything else is one line that says what to do."""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from lotus2_ros.bags import InputError, open_recording
from lotus2_ros.bags.reader import ZSTD_MAGIC


def write_big(recorder, path, frames=40):
    """A bag of several chunks: the pictures do not compress."""
    rng = np.random.default_rng(0)
    messages = recorder.messages(frames)
    for topic, item in messages:
        if topic == "/cam/image_raw":
            item.data[:] = rng.integers(0, 255, item.data.shape, dtype=np.uint8)
    recorder.write(path, StoragePlugin.MCAP, messages, CompressionMode.STORAGE, chunk=12)
    return next(path.glob("*.mcap"))


def read(path):
    said: list[str] = []
    frames = list(open_recording([path], say=said.append).frames())
    return frames, said


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_mcap_is_read_up_to_its_end(recorder, tmp_path, share):
    whole = write_big(recorder, tmp_path / "bag").read_bytes()
    path = tmp_path / "cut.mcap"
    path.write_bytes(whole[: int(share * len(whole))])
    frames, said = read(path)
    assert abs(len(frames) - 40 * share) <= 5
    assert [frame.stamp_ns for frame in frames] == [(index + 1) * 10**9 for index in range(len(frames))]
    (line,) = said
    assert "truncated" in line and "mcap recover" in line and "\n" not in line


def test_a_damaged_chunk_ends_the_reading(recorder, tmp_path):
    path = write_big(recorder, tmp_path / "bag")
    data = bytearray(path.read_bytes())
    magic = data.index(ZSTD_MAGIC, len(data) // 2)
    data[magic : magic + 4] = b"junk"
    path.write_bytes(data)
    frames, said = read(path)
    assert 10 <= len(frames) <= 25
    assert "damaged after" in said[0] and "mcap recover" in said[0]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("drive.MCAP", "an MCAP file; rename it to drive.mcap"),
        ("drive", "an MCAP file; rename it to drive.mcap"),
        ("drive.db3.zstd", "compressed by zstd; `zstd -d drive.db3.zstd`"),
        ("drive.bag.active", "a ROS 1 bag; rename it to drive.bag, and `rosbag reindex`"),
    ],
)
def test_a_bag_under_another_name_says_what_to_do(recorder, tmp_path, name, advice):
    folder = recorder.write(tmp_path / "bag", StoragePlugin.MCAP, recorder.messages())
    begin = {"drive.db3.zstd": ZSTD_MAGIC, "drive.bag.active": b"#ROSBAG V2.0\n"}
    (tmp_path / name).write_bytes(begin.get(name) or next(folder.glob("*.mcap")).read_bytes())
    with pytest.raises(InputError, match=r"expected a name that ends in \.bag, \.mcap, \.db3, got ") as caught:
        open_recording([tmp_path / name])
    assert advice in str(caught.value)
    recorder.check(folder / "metadata.yaml")  # stands for its folder


def test_metadata_of_a_reindexed_bag_names_no_storage(recorder, tmp_path):
    for plugin in (StoragePlugin.MCAP, StoragePlugin.SQLITE3):
        folder = recorder.write(tmp_path / plugin.name, plugin, recorder.messages())
        metadata = folder / "metadata.yaml"
        text = metadata.read_text()
        assert f"storage_identifier: {plugin.name.lower()}" in text
        metadata.write_text(text.replace(f"storage_identifier: {plugin.name.lower()}", "storage_identifier: ''"))
        recorder.check(folder)


def test_an_mcap_of_ros1_is_refused_by_name(recorder, tmp_path):
    path = write_big(recorder, tmp_path / "bag", 2)
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 4) + b"ros2", struct.pack("<I", 4) + b"ros1", 1))
    with pytest.raises(InputError, match=r"expected ROS 2 messages, got .* of profile 'ros1'.*give the original .bag"):
        open_recording([path])


@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_a_truncated_sqlite_bag_is_one_line(recorder, tmp_path, mode):
    folder = recorder.write(tmp_path / "bag", StoragePlugin.SQLITE3, recorder.messages()[1:3], mode)
    file = next(f for f in folder.iterdir() if f.name != "metadata.yaml")
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(InputError, match=r"not a bag that can be read .*(ros2 bag reindex|zstd -dc)") as caught:
        open_recording([folder])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [MemoryError(), OverflowError("too large"), StopIteration(), RecursionError("deep")])
def test_errors_of_any_class_inside_the_reader_are_one_line(recorder, tmp_path, monkeypatch, error):
    path = recorder.write(tmp_path / "bag", StoragePlugin.MCAP, recorder.messages())

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("rosbags.highlevel.AnyReader.open", fail)
    with pytest.raises(InputError, match=r"bag: not a bag that can be read"):
        open_recording([path])


def test_metadata_with_words_for_numbers_is_one_line(recorder, tmp_path):
    metadata = recorder.write(tmp_path / "bag", StoragePlugin.MCAP, recorder.messages()) / "metadata.yaml"
    head, topics = metadata.read_text().split("topics_with_message_count:")
    metadata.write_text(
        f"{head}topics_with_message_count:{re.sub('message_count: [0-9]+', 'message_count: two', topics)}"
    )
    with pytest.raises(InputError, match=r"bag: not a bag that can be read .*`ros2 bag reindex` rebuilds the metadata"):
        open_recording([tmp_path / "bag"])
