"""Where a command may write: never over an input, and never over files that it did not write itself."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
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
    is_ours = place.is_dir() or place.is_file()  # reading a pipe or a device may never end
    if not is_ours or (written_by or marked_by)(place) != command:
        raise OutputError(
            f"{output}: already exists and was not written by `lotus2 {command}`; move it or choose another output"
        )
    return place


def check_apart(output: Path, inputs: Iterable[Path]) -> Path:
    """The path to write to, with links resolved.

    Raises OutputError if it is, contains or lies inside an input, or if nothing can be written there.
    """
    try:
        place = output.resolve()
        # A folder that exists is written into, even if the one above it may not be: a mounted volume, say.
        there = place if place.is_dir() else next(path for path in place.parents if path.exists())
    except (OSError, RuntimeError) as error:  # links in a circle, a name that is too long, a folder closed to us
        raise OutputError(f"{output}: {error}; choose another place for the output") from None
    for path in inputs:
        source = Path(os.path.realpath(path))  # also of links in a circle, which whoever reads the input reports
        if _is_same(source, place):
            relation = "is"
        elif any(_is_same(source, parent) for parent in place.parents):
            relation = "is inside"
        elif any(_is_same(place, parent) for parent in source.parents):
            relation = "contains"
        else:
            continue
        raise OutputError(f"{output}: this output {relation} the input {path}; choose another place for the output")
    if not there.is_dir() or not os.access(there, os.W_OK):
        problem = "may not be written to" if there.is_dir() else "is no folder"
        raise OutputError(f"{output}: {there} {problem}; choose another place for the output")
    return place


def result_folder(output: Path, source: Path, suffix: str = "") -> Path:
    """The folder below ``output`` for one input, by the input's name and a suffix. Raises OutputError."""
    name = (source.resolve() if source.name in ("", "..") else source).stem
    if name in ("", ".", ".."):
        raise OutputError(f"{source}: expected an input whose name can be that of a folder; rename it")
    return output / f"{name}{suffix}"


def marked_by(folder: Path) -> str | None:
    """The command that made this output folder; None if no command did."""
    marker = folder / MARKER
    return marker.read_text().strip() if marker.is_file() else None


def mark(folder: Path, command: str) -> None:
    """Create a folder, if need be, and mark it as an output of a command."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text(command + "\n")


@contextmanager
def claimed(folder: Path, command: str) -> Iterator[None]:
    """Mark a folder, and keep other runs of any command that claims its outputs away from it meanwhile.

    Raises OutputError if another run has it.
    """
    mark(folder, command)
    with (folder / MARKER).open() as marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise in_use(folder) from None
        except OSError:
            pass  # a file system without locks
        yield


def is_claimed(folder: Path) -> bool:
    """Whether a run, of this or another process, has the folder."""
    with suppress(FileNotFoundError), (folder / MARKER).open() as marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False


def in_use(folder: Path) -> OutputError:
    return OutputError(f"{folder}: another run is writing there; wait for its end, or choose another output")


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_same(path: Path, other: Path) -> bool:
    """By what they are, as a hard link or a mounted folder has another path; a path that does not exist by its name."""
    try:
        return path.samefile(other)
    except OSError:
        return path == other


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
