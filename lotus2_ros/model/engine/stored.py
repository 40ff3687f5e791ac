"""Compiled stages on disk, so that only the first start on a machine compiles them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch

from lotus2_ros.model.torch_model import InferenceModel

log = logging.getLogger(__name__)

LARGEST_BYTES = 2 << 30  # of all files together; the least recently used go first
DIGEST = 16  # bytes, at the start of a file
SOURCES = Path(__file__).parents[1]  # the code that computes a stage


def cache_folder(name: str) -> Path | None:
    """A lasting folder for compiled code, or None where there is no writable one."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lotus2_ros" / name
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home, or not a writable one
        return None
    return folder if os.access(folder, os.W_OK) else None


class StoredStages:
    """Files by what they were made from: a model, the code, and whatever a stage is compiled with."""

    def __init__(self, folder: Path | None, made_from: str) -> None:
        self._folder, self._made_from = folder, made_from

    def read(self, *parts: object) -> bytes | None:
        """None also for a file that is damaged."""
        path = self._path(parts)
        if path is None:
            return None
        try:
            stored = path.read_bytes()
            path.touch()
        except OSError:
            return None
        content = stored[DIGEST:]
        return content if hashlib.blake2b(content, digest_size=DIGEST).digest() == stored[:DIGEST] else None

    def write(self, content: bytes, *parts: object) -> None:
        """Does nothing where the folder cannot take it."""
        path = self._path(parts)
        if path is None:
            return
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            partial.write_bytes(hashlib.blake2b(content, digest_size=DIGEST).digest() + content)
            partial.replace(path)  # whole or not at all: another process may read it
            self._prune(path.parent)
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)  # of a full disk
            log.info("%s: %s; the stage is compiled again at the next start", path.parent, error.strerror)

    def _path(self, parts: tuple[object, ...]) -> Path | None:
        return None if self._folder is None else self._folder / f"{_digest([self._made_from, repr(parts)])}.blob"

    @staticmethod
    def _prune(folder: Path) -> None:
        total = 0
        for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True):
            total += path.stat().st_size
            if total > LARGEST_BYTES:
                path.unlink(missing_ok=True)


def fingerprint(model: InferenceModel) -> str:
    """A hash of all that a model computes with: weights, configs and the code of this package."""
    described = [type(model).__name__, json.dumps(model.configs, sort_keys=True, default=list), repr(model.settings)]
    described += [f"torch {torch.__version__}"]
    digest = hashlib.blake2b(_digest(described).encode(), digest_size=DIGEST)
    for path in sorted(SOURCES.rglob("*.py")):
        digest.update(path.read_bytes())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _digest(texts: Iterable[str]) -> str:
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=DIGEST).hexdigest()
