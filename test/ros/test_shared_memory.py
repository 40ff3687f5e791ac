"""Only segments that no process holds are removed."""

import fcntl
import os
import time

import pytest

from lotus2_ros.ros.shared_memory import YOUNG, remove_stale_segments

SEGMENT = "fastdds_0123456789abcdef"
OF_VERSION_2 = "fastrtps_0123456789abcdef"


def leave_behind(folder, name: str, age: float):
    """A segment and its lock file."""
    lock_file = folder / f"{name}_el"
    for path in (folder / name, lock_file):
        path.write_bytes(b"")
    os.utime(lock_file, (time.time() - age,) * 2)
    return lock_file


@pytest.mark.parametrize("name", [SEGMENT, OF_VERSION_2])
def test_a_segment_that_nobody_holds_is_removed(tmp_path, name):
    leave_behind(tmp_path, name, age=2 * YOUNG)
    remove_stale_segments(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_segment_in_use_stays(tmp_path):
    with leave_behind(tmp_path, SEGMENT, age=2 * YOUNG).open() as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        remove_stale_segments(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_segment_that_may_be_about_to_be_locked_stays(tmp_path):
    leave_behind(tmp_path, SEGMENT, age=0.0)
    remove_stale_segments(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_ports_and_files_of_others_stay(tmp_path):
    for name in ("fastdds_port7000", "fastrtps_port7000", "fastdds_0123456789ABCDEF", "mine"):
        leave_behind(tmp_path, name, age=2 * YOUNG)
    remove_stale_segments(tmp_path)
    assert len(list(tmp_path.iterdir())) == 8


def test_no_shared_memory_is_no_error(tmp_path):
    remove_stale_segments(tmp_path / "none")
