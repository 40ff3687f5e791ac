"""Checksums of the files that a bundle is made from. Those of unchanged files are kept for a run that continues."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from lotus2_ros.prepare.progress import PrepareProgress

FILE = "checksums.json"
CHUNK = 1 << 24


class Checksums:
    """SHA-256 by path, with size and modification time of the file when it was read."""

    def __init__(self, known: Mapping[str, list] | None = None) -> None:
        self._known = dict(known or {})

    @classmethod
    def read(cls, folder: Path) -> Checksums:
        """Those of an earlier run, none if there was none."""
        try:
            known = json.loads((folder / FILE).read_text())
        except (OSError, ValueError):
            return cls()
        return cls(known if isinstance(known, dict) else None)

    def write(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(self._known))

    def of(self, files: Mapping[str, Path]) -> dict[str, str]:
        """The checksum of each file. Only files that are new or have changed are read."""
        states = {path: _state(path) for path in files.values()}
        new = [path for path in files.values() if self._known.get(str(path.resolve()), [])[:2] != states[path]]
        with PrepareProgress(
            "reading", sum(size for size, _ in map(states.__getitem__, new)), in_bytes=True
        ) as progress:
            for path in new:
                self._known[str(path.resolve())] = [*states[path], _digest(path, progress)]
        return {name: self._known[str(path.resolve())][2] for name, path in files.items()}


def _state(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _digest(path: Path, progress: PrepareProgress) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            progress.step(path.name, len(chunk))
    return digest.hexdigest()
