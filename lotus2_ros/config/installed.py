"""Files that the package installs beside its code: msg/, config/, launch/."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
AMPLE = 512 * 2**20  # bytes of it, for eight processes with a segment of config/fastdds.xml each


def prefixes() -> list[Path]:
    """Where ROS packages are installed: in ROS workspaces and this Python."""
    return [
        Path(prefix) for prefix in (*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix) if prefix
    ]


def fastdds_variable() -> str:
    """The environment variable that Fast DDS reads its profile from: version 2 (Humble, Jazzy) has the older name."""
    has_version_2 = any((prefix / "share" / "fastrtps").is_dir() for prefix in prefixes())
    return f"{'FASTRTPS' if has_version_2 else 'FASTDDS'}_DEFAULT_PROFILES_FILE"


FASTDDS_PROFILE = fastdds_variable()


def share(path: str) -> Path:
    """``path`` below share/lotus2_ros, ``config/fastdds.xml`` say: in the source tree, ROS workspaces or this Python.

    Raises FileNotFoundError that names the places looked at.
    """
    places = [Path(__file__).parents[2], *(prefix / "share" / "lotus2_ros" for prefix in prefixes())]
    for place in places:
        if (place / path).is_file():
            return place / path
    raise FileNotFoundError(
        f"expected {path} of lotus2_ros in {' or '.join(map(str, places))}, found none; install the package"
    )


def fastdds_profile() -> Path:
    """Fast DDS's settings for large messages, with segments that fit into this machine's shared memory."""
    ample = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).total >= AMPLE
    return share("config/fastdds.xml" if ample else "config/fastdds_small.xml")
