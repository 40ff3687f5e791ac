"""Bags that are written."""

from __future__ import annotations

import pytest
from rosbags.rosbag2 import StoragePlugin

from lotus2_ros.bags import BagWriter, open_recording, read_messages, write_frames


def test_written_frames_are_read_again(recorder, tmp_path):
    folder = recorder.write(tmp_path / "bag", StoragePlugin.MCAP, recorder.messages())
    for out in (tmp_path / "out", tmp_path / "out.mcap"):
        assert write_frames(out, open_recording([folder]).frames()) == 2
        assert write_frames(out, open_recording([folder]).frames()) == 2  # over the old one
        recorder.check(out)
    assert (tmp_path / "out" / "metadata.yaml").is_file() and (tmp_path / "out.mcap").is_file()
    topics = [topic for topic, _, _, _ in read_messages(tmp_path / "out.mcap")]
    assert topics == ["/camera_info", "/reference/depth", "/image"] * 2
    assert [kind for _, kind, _, _ in read_messages(tmp_path / "out.mcap", ["/image"])] == ["sensor_msgs/msg/Image"] * 2


def test_an_interrupted_writer_keeps_the_old_bag_and_leaves_nothing(recorder, tmp_path):
    out = tmp_path / "out.mcap"
    folder = recorder.write(tmp_path / "bag", StoragePlugin.MCAP, recorder.messages())
    write_frames(out, open_recording([folder]).frames())
    before = out.read_bytes()
    with pytest.raises(RuntimeError), BagWriter(out) as bag:
        bag.write("/other", recorder.messages()[0][1])
        raise RuntimeError
    assert out.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bag", "out.mcap"]
