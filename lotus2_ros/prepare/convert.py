"""From a conversion to a bundle on disk, part by part; a run that was killed continues where it was."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lotus2_ros import __version__
from lotus2_ros.model.conversion import Conversion
from lotus2_ros.model.manifest import write_manifest
from lotus2_ros.prepare.progress import PrepareProgress
from lotus2_ros.prepare.work import Work, check_output, check_space, unfinished_size

# Room beside the weights: headers, the manifest, and what a killed run leaves for the next.
SPACE_MARGIN = 1 << 26
CHUNK = 1 << 20


def convert(conversion: Conversion, output: Path) -> dict[str, Any]:
    """Write a bundle and return its manifest.

    Continues an interrupted run for the same output if files and settings are the same; the result is the same, too.
    Raises ValueError or OSError, and leaves nothing, on bad input, NaN or Inf anywhere, or too little room.
    """
    check_output(output)
    check_space(output.parent, conversion.size + SPACE_MARGIN - unfinished_size(output))
    sources = checksums(conversion.files)
    work = Work(output, {**conversion.plan, "versions": [__version__, torch.__version__], "sources": sources})
    with leaving_nothing(work):
        with PrepareProgress("converting", len(conversion.parts)) as progress:
            for part in conversion.convert(work):
                progress.step(part)
        manifest = conversion.manifest(sources)
        write_manifest(work.bundle, manifest)
        work.finish()
    return manifest


def checksums(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of each file."""
    digests = {}
    with PrepareProgress("reading", len(files)) as progress:
        for name, path in files.items():
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
            digests[name] = digest.hexdigest()
            progress.step(name)
    return digests


@contextmanager
def leaving_nothing(work: Work) -> Iterator[None]:
    """Remove the unfinished bundle on an error. A killed or interrupted run keeps it, and the next run continues."""
    try:
        yield
    except Exception:  # any error; it is raised again
        work.discard()
        raise
