"""Where a command may write: never over an input, and never over files that it did not write itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

MARKER = ".lotus2_output"  # a file in the output folder of a command, with the command's name


class OutputError(ValueError):
    """A place where a command must not write."""


def check_output(
    output: Path,
    command: str,
    inputs: Iterable[Path] = (),
    *,
    written_by: Callable[[Path], str | None] | None = None,
) -> Path:
    """The path to write to, with links resolved.

    It may be new, an empty folder, or an earlier output of ``command``. ``written_by`` tells which command wrote an
    existing path; by default that is read from the folder's marker. Raises OutputError.
    """
    place = check_apart(output, inputs)
    if not place.exists() or _is_empty_folder(place):
        return place
    if (written_by or marked_by)(place) != command:
        raise OutputError(
            f"{output}: already exists and was not written by `lotus2 {command}`; move it or choose another output"
        )
    return place


def check_apart(output: Path, inputs: Iterable[Path]) -> Path:
    """The path to write to, with links resolved.

    Raises OutputError if it is, contains or lies inside an input, or if nothing can be written there.
    """
    place = output.resolve()
    for path in inputs:
        source = path.resolve()
        if source == place:
            relation = "is"
        elif source in place.parents:
            relation = "is inside"
        elif place in source.parents:
            relation = "contains"
        else:
            continue
        raise OutputError(f"{output}: this output {relation} the input {path}; choose another place for the output")
    # A folder that exists is written into, even if the one above it may not be: a mounted volume, say.
    there = place if place.is_dir() else next(path for path in place.parents if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        problem = "may not be written to" if there.is_dir() else "is no folder"
        raise OutputError(f"{output}: {there} {problem}; choose another place for the output")
    return place


def marked_by(folder: Path) -> str | None:
    """The command that made this output folder; None if no command did."""
    marker = folder / MARKER
    return marker.read_text().strip() if marker.is_file() else None


def mark(folder: Path, command: str) -> None:
    """Create a folder, if need be, and mark it as an output of a command."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text(command + "\n")


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
