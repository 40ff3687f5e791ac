"""A bundle of Lotus-D or Lotus-G: `bundle.json`, and a safetensors file for the VAE with the prompt, and each U-Net."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lotus2_ros.model.lotus.lotus import Lotus
from lotus2_ros.model.manifest import MANIFEST, METADATA, check_metadata, choose_tasks, naming
from lotus2_ros.model.weights import assign_weights, check_weights, read_weights

FORMAT = 1
FAMILIES = ("lotus-d", "lotus-g")


def describe(model: Lotus, dtype: torch.dtype) -> dict[str, Any]:
    """The manifest of a model whose weights are stored in `dtype`; its metadata as for `save_bundle`."""
    check_metadata(model.metadata)
    return {
        "format": FORMAT,
        "family": model.family,
        **{key: model.metadata[key] for key in METADATA if key in model.metadata},
        "tasks": list(model.tasks),
        "predicts": model.predicts,
        "dtype": str(dtype).removeprefix("torch."),
        "precision": str(dtype).removeprefix("torch."),
        "process_resolution": model.process_resolution,
        "antialias": model.antialias,
        "enlarges": model.enlarges,
        "prompt_shape": list(model.prompt_embeds.shape[1:]),
        "components": dict(model.configs),
    }


def parts(model: Lotus) -> dict[str, list[str]]:
    """File of a bundle -> names of the weights in it."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in model.state_dict():
        component, task = name.split(".")[:2] if "." in name else (name, "")
        found[f"unet_{task}.safetensors" if component == "unets" else "vae.safetensors"].append(name)
    return dict(found)


def save_lotus(model: Lotus, folder: Path, *, metadata: Mapping[str, Any], dtype: torch.dtype) -> None:
    """Write a model that is in memory as a bundle, its weights in `dtype`; metadata as for `save_bundle`."""
    model.metadata = dict(metadata)
    folder.mkdir(parents=True, exist_ok=True)
    state, dtype_of = model.state_dict(), model.dtype_of(dtype)
    for file, names in parts(model).items():
        weights = {name: state[name].to("cpu", dtype_of(name)).contiguous() for name in names}
        # Replaced as a whole: the old file may be mapped into this very model.
        save_file(weights, folder / f"{file}.part")
        (folder / f"{file}.part").replace(folder / file)
    (folder / MANIFEST).write_text(json.dumps(describe(model, dtype), indent=2) + "\n")


def load_lotus(
    folder: Path, manifest: Mapping[str, Any], *, tasks: Sequence[str] | None = None, **settings: Any
) -> tuple[Lotus, dict[str, Tensor]]:
    """The bundle's model without memory for its weights, and these, memory-mapped. `tasks`: a part of the bundle's."""
    with naming(folder / MANIFEST), torch.device("meta"):
        model = Lotus(
            manifest["components"],
            tasks=choose_tasks(manifest["tasks"], tasks, folder),
            predicts=manifest["predicts"],
            prompt_shape=tuple(manifest["prompt_shape"]),
            process_resolution=manifest["process_resolution"],
            antialias=manifest["antialias"],
            enlarges=manifest["enlarges"],
            metadata={key: manifest[key] for key in METADATA if key in manifest},
            **settings,
        )
    state: dict[str, Tensor] = {}
    expected = model.state_dict()
    for file, names in parts(model).items():
        tensors = read_weights(folder / file)
        check_weights(folder / file, tensors, {name: expected[name] for name in names})
        state |= tensors
    return model, state


def ready(model: Lotus, state: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> Lotus:
    """The model with its weights, to run."""
    assign_weights(model, state, device, model.dtype_of(dtype))
    return model.eval().requires_grad_(False)
