"""Lotus-2 bundles: one folder with all that a model needs, `bundle.json` and safetensors. No text encoder, no pickle.

Format 1 is a model that can be trained on, all its weights in `model.safetensors`. They are named as in
`TrainableLotus2.state_dict()`, without PEFT's wrapping. Format 2 is a fused model, as `lotus2 prepare` writes it, with
a file for each part of the network. In both the weights may be stored in a smaller dtype than they run in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lotus2_ros.model.layers.precision import dtype_name
from lotus2_ros.model.lotus2 import FUSED_FORMAT, NAME, TRAINABLE_FORMAT
from lotus2_ros.model.lotus2.base import CORE, SHARPENER, FusedPlan, Lotus2, adapter_name
from lotus2_ros.model.lotus2.fused import FusedLotus2
from lotus2_ros.model.lotus2.manifest import FusedManifest, TrainableManifest
from lotus2_ros.model.lotus2.source import Source
from lotus2_ros.model.manifest import (
    MANIFEST,
    FloatName,
    ModelSettings,
    choose_tasks,
    naming,
    read_header,
    stored_metadata,
    write_manifest,
)
from lotus2_ros.model.weights import (
    CheckpointError,
    assign_weights,
    read_parts,
    stored_state,
    write_parts,
)

if TYPE_CHECKING:
    from lotus2_ros.model.lotus2.trainable import TrainableLotus2

WEIGHTS = "model.safetensors"
SETTINGS = (
    "timestep_dtype", "process_resolution", "process_by_area", "antialias", "guided", "sharpener_steps",
    "sharpen_by_default",
)  # fmt: skip


def save_bundle(model: TrainableLotus2, folder: str | Path, *, metadata: Mapping[str, Any], dtype: torch.dtype) -> None:
    """Write a model in format 1, its weights in `dtype`.

    metadata: `name` and `licence`; optionally `sources`, {file: sha256} of its sources, and `card`, free text.
    """
    source = model.source()  # which raises ValueError on a network that can be trained but not run
    network = {
        "adapters": {
            name: {"rank": lora.rank, "alpha": lora.scale * lora.rank, "targets": lora.targets}
            for name, lora in sorted(source.adapters.items())
        },
        "components": source.configs,
    }
    precision = {"precision": dtype_name(dtype)}
    manifest = _describe(model, TRAINABLE_FORMAT, metadata, dtype, precision, network)
    write_parts(Path(folder), stored_state(model), lambda name: WEIGHTS, lambda name: dtype)
    write_manifest(Path(folder), manifest)


def describe_fused(
    model: FusedLotus2, *, metadata: Mapping[str, Any], dtype: torch.dtype, errors: Mapping[str, Any]
) -> dict[str, Any]:
    """The manifest of a fused model (format 2) whose unquantized tensors are stored in `dtype`.

    metadata: as for `save_bundle`. errors: of the precision, measured against float32.
    """
    plan = model.plan
    network = {
        "base": plan.base,
        "adapters": {
            name: {"rank": adapter.rank, "scale": adapter.scale, "targets": adapter.targets}
            for name, adapter in sorted(plan.adapters.items())
        },
        "timesteps": list(plan.timesteps),
        "components": model.configs,
    }
    precision = {"precision": plan.precision, "errors": dict(errors)}
    return _describe(model, FUSED_FORMAT, metadata, dtype, precision, network)


def _describe(
    model: Lotus2,
    number: int,
    metadata: Mapping[str, Any],
    dtype: torch.dtype,
    precision: Mapping[str, Any],
    network: Mapping[str, Any],
) -> dict[str, Any]:
    """The manifest in format `number`: what both have, with the keys in which they differ."""
    return {
        "format": number,
        "family": NAME,
        **stored_metadata(metadata),
        "tasks": list(model.tasks),
        "stages": {task: [CORE] + ([SHARPENER] if model.has_sharpener(task) else []) for task in model.tasks},
        "dtype": dtype_name(dtype),
        **precision,
        **model.settings.stored(*SETTINGS),
        "prompt_tokens": model.prompt_tokens,
        **network,
    }


def open_bundle(folder: Path, *, tasks: Sequence[str] | None = None, timestep_dtype: FloatName | None = None) -> Source:
    """A model in format 1, its weights memory-mapped. tasks, timestep_dtype: the bundle's own if None."""
    path = folder / MANIFEST
    read_header(path, {NAME: (TRAINABLE_FORMAT,)})
    manifest, settings = TrainableManifest.read(path), ModelSettings.read(path)
    wanted = choose_tasks(manifest.tasks, tasks, folder)
    settings = settings.changed(tasks=wanted, timestep_dtype=timestep_dtype or settings.timestep_dtype)
    names = [adapter_name(stage, task) for task in wanted for stage in manifest.stages[task]]
    adapters = {name: lora.spec for name in names if (lora := manifest.adapters.get(name)) is not None}
    weights: dict[str, Tensor] = {}
    with naming(path):
        source = Source(
            manifest.configs,
            adapters,
            settings,
            manifest.prompt_tokens,
            manifest.metadata,
            weights.__getitem__,
            lambda: (weights["conditioner.prompt_embeds"], weights["conditioner.pooled"]),
        )
        shapes = source.shapes()
    weights |= read_parts(folder, shapes, lambda name: WEIGHTS, _others(manifest.tasks, wanted))
    return source


def load_bundle(
    folder: str | Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    tasks: Sequence[str] | None = None,
    timestep_dtype: FloatName | None = None,
) -> TrainableLotus2:
    """A model in format 1, in its trainable form."""
    from lotus2_ros.model.lotus2.trainable import TrainableLotus2

    source = open_bundle(Path(folder), tasks=tasks, timestep_dtype=timestep_dtype)
    with naming(Path(folder) / MANIFEST):
        return TrainableLotus2.load(source, device, dtype)


def load_fused_bundle(
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    tasks: Sequence[str] | None = None,
    timestep_dtype: FloatName | None = None,
) -> FusedLotus2:
    """A model in format 2, ready to run. `timestep_dtype` must be the one it was prepared for, or None."""
    path = folder / MANIFEST
    manifest, settings = FusedManifest.read(path), ModelSettings.read(path)
    if timestep_dtype not in (None, settings.timestep_dtype):
        raise CheckpointError(
            f"{folder}: expected timestep_dtype {settings.timestep_dtype}, for which it was prepared, got "
            f"{timestep_dtype}; prepare it again with --timestep-dtype {timestep_dtype}"
        )
    wanted = choose_tasks(manifest.tasks, tasks, folder)
    adapters = {name: lora.spec for name, lora in manifest.adapters.items()}
    plan = FusedPlan(manifest.base, adapters, manifest.precision, wanted, manifest.timesteps)
    with naming(path), torch.device("meta"):
        model = FusedLotus2(
            manifest.configs, plan, settings, prompt_tokens=manifest.prompt_tokens, metadata=manifest.metadata
        )
    state = read_parts(
        folder, model.state_dict(), lambda name: part_file(part_of(name)), _others(manifest.tasks, wanted)
    )
    assign_weights(model, state, device, model.dtype_of(dtype))
    return model.eval().requires_grad_(False)


def part_of(name: str) -> str:
    """The part of a fused network that a parameter is stored with."""
    component, kind, index = (*name.split("."), "", "")[:3]
    if component == "transformer" and kind in ("double_blocks", "single_blocks"):
        return f"{kind}.{index}"
    return component if component in ("vae", "prior") else "ends"


def part_file(part: str) -> str:
    return f"{part}.safetensors"


def _others(available: Sequence[str], wanted: Sequence[str]) -> Any:
    """Whether a weight, by its name, serves only tasks that are not wanted."""
    left_out = [task for task in available if task not in wanted]
    markers = [f".{adapter_name(stage, task)}." for stage in (CORE, SHARPENER) for task in left_out]
    prefixes = tuple(f"continuity.{task}." for task in left_out)
    return lambda name: name.startswith(prefixes) or any(marker in name for marker in markers)
