"""Room on the disk, looked at before gigabytes are written."""

from __future__ import annotations

import shutil
from pathlib import Path

GIGABYTE = 1e9


class DiskSpaceError(ValueError):
    """Too little room on a disk."""


def check_space(folder: Path, needed: int) -> None:
    """Raise DiskSpaceError unless so many bytes can be written below a folder, which need not exist yet."""
    folder = folder.absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise DiskSpaceError(f"needs {needed / GIGABYTE:.2f} GB at {folder}, {free / GIGABYTE:.2f} GB free")
