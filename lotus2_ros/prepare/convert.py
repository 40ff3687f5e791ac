"""From a source to a bundle, part by part: fused, stored in its precision, measured, written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lotus2_ros import __version__
from lotus2_ros.model.lotus2.fuse import FusedPart, Fusion
from lotus2_ros.model.lotus2.fused_bundle import FORMAT, describe, part_file
from lotus2_ros.model.lotus2.source import Source
from lotus2_ros.model.manifest import MANIFEST
from lotus2_ros.prepare.disk import check_space
from lotus2_ros.prepare.probe import ENDS, Probe
from lotus2_ros.prepare.progress import PrepareProgress
from lotus2_ros.prepare.work import BUNDLE, Work, check_output, unfinished_size

PROMPT, PROBE = "prompt.safetensors", "probe.safetensors"
# Beside the weights: headers, manifest, and what a run that is killed leaves for the next.
SPACE_MARGIN = 1 << 26
CHUNK = 1 << 20


def convert(
    source: Source, output: Path, *, precision: str, device: torch.device, files: Mapping[str, Path]
) -> dict[str, Any]:
    """Write the bundle of a source and give its manifest. `files`: all it is made from, by the names to record.

    Goes on where an earlier run for the same output was killed if files and settings are the same, and so is the
    result. Raises ValueError or OSError, and leaves nothing, on bad input, NaN or Inf anywhere, or too little room.
    """
    check_output(output)
    check_space(output.parent, stored_size(source, precision) + SPACE_MARGIN - unfinished_size(output))
    plan = {
        "format": FORMAT,
        "versions": [__version__, torch.__version__],
        "tasks": source.model.tasks,
        "conditioning": source.model.conditioning,
        "precision": precision,
        "device": device.type,
        "sources": checksums(files),
    }
    work = Work(output, plan)
    with leaving_nothing(work):
        fusing = Fusion(replace(source, embed_prompt=lambda: _embed_prompt_once(source, work)), precision)
        manifest = describe(
            fusing.model,
            metadata={**source.model.metadata, "sources": plan["sources"]},
            dtype=_storage(precision),
            errors=_convert_parts(fusing, work, device),
        )
        (work.bundle / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        work.finish()
    return manifest


@torch.no_grad()
def stored_size(source: Source, precision: str) -> int:
    """Bytes of a bundle's weights, within the few that the prompt's text makes a difference of."""
    conditioner = source.model.conditioner
    blank = (torch.zeros(conditioner.prompt_embeds.shape), torch.zeros(conditioner.pooled.shape))
    model = Fusion(replace(source, embed_prompt=lambda: blank), precision).model
    dtype_of = model.dtype_of(_storage(precision))
    return sum(t.numel() * (dtype_of(name) or t.dtype).itemsize for name, t in model.state_dict().items())


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
    """An error removes what is unfinished. To be killed or interrupted does not: the next run goes on with it."""
    try:
        yield
    except Exception:
        work.discard()
        raise


def _embed_prompt_once(source: Source, work: Work) -> tuple[Tensor, Tensor]:
    embedded = work.read(PROMPT)
    if embedded is None:
        embedded = dict(zip(("prompt_embeds", "pooled"), source.embed_prompt(), strict=True))
        work.write(PROMPT, embedded)
    return embedded["prompt_embeds"], embedded["pooled"]


def _convert_parts(fusing: Fusion, work: Work, device: torch.device) -> dict[str, Any]:
    """All parts to files; what the precision costs."""
    probe, state = Probe(fusing.model, device), work.read(PROBE)
    done = 0
    if state is not None:
        probe.state, done = state, int(state["done"])
    with PrepareProgress("fusing", len(fusing.names)) as progress:
        for number, name in enumerate(fusing.names, start=1):
            if number > done or name in ENDS:
                _convert_part(fusing, name, work, probe, device)
            if number > done and name not in ENDS:
                # The last thing of a part: a run that goes on does so after the part that is counted here.
                work.write(PROBE, {**probe.state, "done": torch.tensor(number)})
            progress.step(name)
    return probe.errors()


def _convert_part(fusing: Fusion, name: str, work: Work, probe: Probe, device: torch.device) -> None:
    dtype_of = fusing.model.dtype_of(_storage(fusing.model.plan.precision))
    part = FusedPart(name, {key: tensor.to(device) for key, tensor in fusing.part(name).tensors.items()})
    stored = {key: tensor.to(device, dtype_of(key)) for key, tensor in fusing.store(part).items()}
    work.write(f"{BUNDLE}/{part_file(Path(), name)}", stored)
    probe.take(name, part.tensors, stored)


def _storage(precision: str) -> torch.dtype:
    """What is not quantised is in FLUX's own dtype."""
    return torch.float32 if precision == "float32" else torch.bfloat16
