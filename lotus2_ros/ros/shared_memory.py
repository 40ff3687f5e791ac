"""Shared memory that Fast DDS leaves behind when a process is killed."""

from __future__ import annotations

import fcntl
import os
import re
import time
from contextlib import suppress
from pathlib import Path

from lotus2_ros.config.installed import SHARED_MEMORY

# Each participant has a segment and locks a file beside it; with Fast DDS 2 its name begins with fastrtps. Ports have
# other names: Fast DDS replaces dead ones.
LOCK_FILE = re.compile(r"fast(dds|rtps)_[0-9a-f]{16}_el")
YOUNG = 10.0  # seconds; a lock file that is younger may be about to be locked


def remove_stale_segments(folder: Path = SHARED_MEMORY) -> None:
    """Remove the segments that no process holds, as ``fastdds shm clean`` does."""
    for lock_file in folder.glob("fast*_el"):
        if not LOCK_FILE.fullmatch(lock_file.name):
            continue
        with suppress(OSError), lock_file.open() as file:  # OSError: locked, gone, or another user's
            if time.time() - os.fstat(file.fileno()).st_mtime < YOUNG:
                continue
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock_file.with_name(lock_file.name.removesuffix("_el")).unlink(missing_ok=True)
            lock_file.unlink()
