"""The local process of an endpoint of Fast DDS, and the environment it was started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
# Of a GUID of Fast DDS: two bytes each of its vendor, the host's number and the low half of the process id.
HOST, PROCESS = slice(2, 4), slice(4, 6)
LIBRARIES = ("libfastdds", "libfastrtps")


class UnreadableError(RuntimeError):
    """A process that cannot be found or read; the message gives the reason."""


@dataclass(frozen=True)
class LocalProcess:
    pid: int
    command: str
    environment: dict[str, str]  # as it was started, without what it has set since


def is_local(gid: bytes, own: bytes) -> bool:
    """Whether an endpoint is on this host, by the GUID of one of our own."""
    return gid[HOST] == own[HOST]


def process_of(gid: bytes) -> LocalProcess:
    """The process of an endpoint on this host. Raises UnreadableError."""
    low = int.from_bytes(gid[PROCESS], "little")
    candidates = [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]
    candidates = [pid for pid in candidates if pid & 0xFFFF == low]
    denied = False
    for pid in candidates:
        try:
            if any(library in (PROC / str(pid) / "maps").read_text() for library in LIBRARIES):
                return _read(pid)
        except PermissionError:
            denied = True
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
    raise UnreadableError("it belongs to another user" if denied else "it is in another container")


def _read(pid: int) -> LocalProcess:
    folder = PROC / str(pid)
    words = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
    pairs = (word.partition("=") for word in words if word)
    return LocalProcess(pid, (folder / "comm").read_text().strip(), {name: value for name, _, value in pairs})
