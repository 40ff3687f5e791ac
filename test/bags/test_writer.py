"""Bags that are written."""

from __future__ import annotations

import errno
import itertools
from dataclasses import replace

import pytest
from rosbags.rosbag2 import StoragePlugin

from lotus2_ros.bags import BagWriter, ResumableBag, open_recording, read_messages, write_frames
from lotus2_ros.bags.writer import MAX_GAP_NS, write_frame
from lotus2_ros.config.output import OutputError


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


def plan(**changes):
    return {"input": "a", "fov": None, **changes}


def resumable(path, **options):
    return ResumableBag(path, "bag", plan(), [], **{"say": lambda line: None, **options})


@pytest.mark.parametrize("name", ["out", "out.mcap"])
def test_an_interrupted_bag_is_readable_and_goes_on(recorder, tmp_path, name):
    frames = list(recorder.frames(tmp_path, 4))
    out, said = tmp_path / name, []
    with pytest.raises(KeyboardInterrupt), resumable(out, say=said.append) as bag:
        for index, frame in enumerate(frames[:3]):
            write_frame(bag, frame)
            if index == 1:
                bag.checkpoint({"frames": 2})
        raise KeyboardInterrupt
    assert not out.exists() and "--resume" in said[0] and str(bag.partial) in said[0]
    (left,) = bag.partial.glob("*/*.mcap")
    assert len(list(read_messages(left, ["/image"]))) == 3
    with pytest.raises(OutputError, match="--resume goes on with it"):
        resumable(out)
    with pytest.raises(OutputError, match="expected to resume a run with fov None, got 70"):
        ResumableBag(out, "bag", plan(fov=70), [], resume=True)
    with resumable(out, resume=True) as bag:
        assert bag.state == {"frames": 2}  # the last one may be incomplete
        for frame in frames[2:]:
            write_frame(bag, frame)
    assert [stamp for *_, stamp, _ in read_messages(out, ["/image"])] == [frame.time_ns for frame in frames]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", name]


def test_a_killed_process_leaves_a_bag_that_can_be_read(recorder, tmp_path):
    with pytest.raises(RuntimeError), resumable(tmp_path / "out.mcap") as bag:
        for frame in recorder.frames(tmp_path, 3):
            write_frame(bag, frame)
            bag.flush()
        (killed,) = bag.partial.glob("*/*.mcap")
        (tmp_path / "killed.mcap").write_bytes(killed.read_bytes())  # no index, no footer
        raise RuntimeError
    said = []
    assert len(list(read_messages(tmp_path / "killed.mcap", ["/image"], said.append))) == 3
    assert "truncated" in said[0] and "mcap recover" in said[0]


def test_only_an_own_bag_is_overwritten_and_only_when_asked(recorder, tmp_path):
    for name in ("out", "out.mcap"):
        out = tmp_path / name
        with resumable(out) as bag:
            write_frame(bag, next(recorder.frames(tmp_path, 1)))
        with pytest.raises(OutputError, match="already exists; --overwrite replaces it"):
            resumable(out)
        with resumable(out, overwrite=True) as bag:
            for frame in recorder.frames(tmp_path, 2):
                write_frame(bag, frame)
        assert len(list(read_messages(out, ["/image"]))) == 2
        assert not bag.partial.exists()
    foreign = recorder.write(tmp_path / "drive", StoragePlugin.MCAP, recorder.messages())
    before = {file: file.read_bytes() for file in foreign.iterdir()}
    for place in (foreign, next(foreign.glob("*.mcap"))):
        with pytest.raises(OutputError, match="was not written by `lotus2 bag`"):
            resumable(place, overwrite=True)
    assert {file: file.read_bytes() for file in foreign.iterdir()} == before


def test_what_was_added_to_an_own_bag_is_not_deleted(recorder, tmp_path):
    out = tmp_path / "out"
    with resumable(out) as bag:
        write_frame(bag, next(recorder.frames(tmp_path, 1)))
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"out: has files that `lotus2 bag` did not write: notes.txt; move them"):
        resumable(out, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine" and len(list(read_messages(out, ["/image"]))) == 1


def test_a_folder_of_somebody_else_beside_the_output_is_not_removed(recorder, tmp_path):
    (tmp_path / "out.mcap.partial").mkdir()
    (tmp_path / "out.mcap.partial" / "notes").write_text("mine")
    with pytest.raises(OutputError, match=r"out.mcap.partial"):
        resumable(tmp_path / "out.mcap", overwrite=True)
    with pytest.raises(OutputError, match=r"out.mcap.partial"), BagWriter(tmp_path / "out.mcap"):
        pass
    assert (tmp_path / "out.mcap.partial" / "notes").read_text() == "mine"


@pytest.mark.parametrize("moment", ["frames", "end"])
def test_a_full_disk_leaves_what_was_written_and_says_how_to_go_on(recorder, tmp_path, monkeypatch, moment):
    frames, said = list(recorder.frames(tmp_path, 3)), []
    out = tmp_path / "out.mcap"

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"), resumable(out, say=said.append) as bag:
        for frame in frames[:2]:
            write_frame(bag, frame)
        bag.checkpoint({"frames": 2})
        for name in ("close", "abort"):  # they write what is left
            monkeypatch.setattr(bag._writer, name, full)
        if moment == "frames":
            full()
    assert f"{bag.partial} has what was done so far" in said[0]
    with monkeypatch.context() as patch:
        patch.setattr("rosbags.rosbag2.Writer.open", full)  # and it is full when somebody tries again
        with pytest.raises(OSError, match="No space left"), resumable(out, resume=True):
            pass
    with resumable(out, resume=True) as bag:
        assert bag.state == {"frames": 2}
        write_frame(bag, frames[2])
    assert len(list(read_messages(out, ["/image"]))) == 3


def test_a_checkpoint_on_a_full_disk_is_no_error_of_torch(recorder, tmp_path):
    with pytest.raises(OSError, match="No space left"), resumable(tmp_path / "out") as bag:
        write_frame(bag, next(recorder.frames(tmp_path, 1)))
        (bag.partial / "state.pt.new").symlink_to("/dev/full")
        bag.checkpoint({"frames": 1, "filter": list(range(10000))})


def test_played_times_have_no_long_gaps_and_do_not_go_back(recorder, tmp_path):
    """A clock that is set while recording: the stamps stay, the times to play at do not jump."""
    (frame,) = recorder.frames(tmp_path, 1)
    jumps = [10**9, 2 * 10**9, 1_700_000_000 * 10**9, 1_700_000_000 * 10**9 - 1, 1_700_000_001 * 10**9]
    write_frames(tmp_path / "out.mcap", [replace(frame, recorded_ns=time) for time in jumps])
    times = [time for _, _, time, _ in read_messages(tmp_path / "out.mcap", ["/image"])]
    assert [after - before for before, after in itertools.pairwise(times)] == [10**9, MAX_GAP_NS, 0, 10**9 + 1]


def test_two_runs_do_not_write_to_one_place(recorder, tmp_path):
    """Neither --overwrite nor --resume takes from a run in progress what it has written."""
    frames = list(recorder.frames(tmp_path, 2))
    out = tmp_path / "out"
    with resumable(out) as bag:
        write_frame(bag, frames[0])
        bag.checkpoint({"frames": 1})
        for options in ({}, {"overwrite": True}, {"resume": True}):
            with pytest.raises(OutputError, match=r"out.partial: another run is writing there; wait for its end"):
                resumable(out, **options)
        with pytest.raises(OutputError, match="another run is writing there"), BagWriter(out):
            pass
        write_frame(bag, frames[1])
    assert len(list(read_messages(out, ["/image"]))) == 2
