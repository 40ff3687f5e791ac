"""Room on the disks, for what is fetched and for the bundle."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

GIGABYTE = 1e9


class DiskSpaceError(ValueError):
    """Too little room on a disk."""


def check_space(folder: Path, needed: int) -> None:
    """Raise DiskSpaceError unless `needed` bytes can be written below a folder, which need not exist yet."""
    check_spaces({folder: needed})


def check_spaces(needs: Mapping[Path, int]) -> None:
    """`check_space` for several folders, whose needs add up where they are on the same disk."""
    disks: dict[int, list[Path]] = defaultdict(list)
    for folder in needs:
        disks[existing(folder).stat().st_dev].append(folder)
    for folders in disks.values():
        needed, free = sum(needs[folder] for folder in folders), shutil.disk_usage(existing(folders[0])).free
        if free < needed:
            places = " and ".join(str(folder.absolute()) for folder in folders)
            raise DiskSpaceError(
                f"expected {needed / GIGABYTE:.2f} GB free at {places}, got {free / GIGABYTE:.2f} GB; free some space"
            )


def existing(folder: Path) -> Path:
    """The folder, or the nearest of its parents that exists."""
    folder = folder.absolute()
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def work_folder(output: Path) -> Path:
    return output.with_name(f"{output.name}.part")


def unfinished_size(output: Path) -> int:
    """Bytes in the work folder. They are used by the next run, or removed."""
    return sum(file.stat().st_size for file in work_folder(output).rglob("*") if file.is_file())
