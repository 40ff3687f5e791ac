"""From a conversion to a bundle on disk, part by part; a run that ended early continues where it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lotus2_ros import __version__
from lotus2_ros.model.conversion import Conversion
from lotus2_ros.model.manifest import write_manifest
from lotus2_ros.model.memory import memory_errors
from lotus2_ros.prepare.checksums import Checksums
from lotus2_ros.prepare.progress import PrepareProgress
from lotus2_ros.prepare.space import check_space, unfinished_size, work_folder
from lotus2_ros.prepare.work import Work, check_new

log = logging.getLogger(__name__)

# Room beside the weights: headers, the manifest, and what an earlier run left.
SPACE_MARGIN = 1 << 26
ADVICE = "close other programs, or choose --device cpu"


def convert(conversion: Conversion, output: Path) -> dict[str, Any]:
    """Write a bundle and return its manifest.

    Continues an earlier run for the same output if files and settings are the same; the result is the same, too.
    Raises ValueError or OSError on bad input, NaN or Inf anywhere, too little room or memory. What was done until then
    is kept for the next run.
    """
    check_new(output)
    check_space(output.parent, conversion.size + SPACE_MARGIN - unfinished_size(output))
    checksums = Checksums.read(work_folder(output))
    sources = checksums.of(conversion.files)
    work = Work(output, {**conversion.plan, "versions": [__version__, torch.__version__], "sources": sources})
    checksums.write(work.folder)
    if work.continues:
        print(f"continuing the unfinished run in {work.folder}", flush=True)
    with keeping(work), memory_errors(ADVICE):
        with PrepareProgress("converting", len(conversion.parts)) as progress:
            for part in conversion.convert(work):
                progress.step(part)
        manifest = conversion.manifest(sources)
        write_manifest(work.bundle, manifest)
        work.finish()
    return manifest


@contextmanager
def keeping(work: Work) -> Iterator[None]:
    """After an error say where the finished parts are, or remove the folder if there are none."""
    try:
        yield
    except Exception:  # any error; it is raised again
        if work.has_results:
            log.warning("what is done is kept in %s: the same command continues there", work.folder)
        else:
            work.discard()
        raise
