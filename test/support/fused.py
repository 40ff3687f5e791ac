"""A fused bundle of a small model, as `lotus2 prepare` writes it, in memory at once."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from lotus2_ros.model.lotus2.bundle import describe_fused, part_file
from lotus2_ros.model.lotus2.fuse import Fusion
from lotus2_ros.model.lotus2.trainable import TrainableLotus2
from lotus2_ros.model.manifest import MANIFEST

METADATA = {"name": "small", "licence": "Apache-2.0", "sources": {"base": "00ff"}}


def write_fused(model: TrainableLotus2, folder: Path, precision: str = "float32") -> Path:
    """The folder, which is made."""
    folder.mkdir(exist_ok=True)
    fusion = Fusion(model.source(), precision)
    for part in fusion.parts():
        save_file({name: t.contiguous() for name, t in fusion.store(part).items()}, folder / part_file(part.name))
    manifest = describe_fused(fusion.model, metadata=METADATA, dtype=torch.float32, errors={})
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder
