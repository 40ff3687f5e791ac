"""A bundle of Lotus-D or Lotus-G: `bundle.json`, and a safetensors file for the VAE with the prompt and the prior, and
one for each U-Net."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lotus2_ros.model.layers.precision import dtype_name
from lotus2_ros.model.lotus import FORMAT
from lotus2_ros.model.lotus.lotus import Lotus
from lotus2_ros.model.lotus.manifest import LotusManifest
from lotus2_ros.model.manifest import MANIFEST, ModelSettings, choose_tasks, naming, stored_metadata, write_manifest
from lotus2_ros.model.weights import CheckpointError, assign_weights, read_parts, write_parts


def describe(model: Lotus, dtype: torch.dtype, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a model whose weights are stored in `dtype`. metadata: as for Lotus-2's `save_bundle`."""
    return {
        "format": FORMAT,
        "family": model.family,
        **stored_metadata(metadata),
        "tasks": list(model.tasks),
        "predicts": model.settings.predicts,
        "dtype": dtype_name(dtype),
        "precision": dtype_name(dtype),
        **model.settings.stored("process_resolution", "antialias", "guided", "upscale"),
        "prompt_shape": list(model.prompt_embeds.shape[1:]),
        "components": dict(model.configs),
    }


def file_of(name: str) -> str:
    """The file of a weight, by its name."""
    component, task = (*name.split("."), "")[:2]
    return f"unet_{task}.safetensors" if component == "unets" else "vae.safetensors"


def parts(model: Lotus) -> dict[str, list[str]]:
    """File of a bundle -> names of the weights in it."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in model.state_dict():
        found[file_of(name)].append(name)
    return dict(found)


def save_bundle(model: Lotus, folder: Path, *, metadata: Mapping[str, Any], dtype: torch.dtype) -> None:
    """Write a model as a bundle, its weights in `dtype`."""
    manifest = describe(model, dtype, metadata)
    write_parts(folder, model.state_dict(), file_of, model.dtype_of(dtype))
    write_manifest(folder, manifest)


def load_bundle(
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    tasks: Sequence[str] | None = None,
    samples: int = 1,
    seed: int = 0,
) -> Lotus:
    """The bundle's model, ready to run. tasks: some of the bundle's, all if None."""
    path = folder / MANIFEST
    manifest, settings = LotusManifest.read(path), ModelSettings.read(path)
    settings = settings.changed(tasks=choose_tasks(manifest.tasks, tasks, folder))
    with naming(path), torch.device("meta"):
        model = Lotus(
            manifest.configs,
            settings,
            prompt_shape=manifest.prompt_shape,
            samples=samples,
            seed=seed,
            metadata=manifest.metadata,
        )
    if model.family != manifest.family:
        raise CheckpointError(f"{path}: family: expected {model.family}, which has such a U-Net, got {manifest.family}")
    state = read_parts(folder, model.state_dict(), file_of, lambda name: False)
    return ready(model, state, device, dtype)


def ready(model: Lotus, state: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> Lotus:
    """The model with its weights, to run."""
    assign_weights(model, state, device, model.dtype_of(dtype))
    return model.eval().requires_grad_(False)
