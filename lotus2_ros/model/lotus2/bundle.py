"""A bundle: one folder with all that a model needs, `bundle.json` and safetensors. No text encoder, no pickle.

Here the form that can be trained on, all in `model.safetensors`: the weights are named as in
`TrainableLotus2.state_dict()`, without PEFT's wrapping, and may be stored in a smaller dtype than they run in. The form
that only runs is in `fused_bundle.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from lotus2_ros.model.lotus2.base import CORE, SHARPENER, adapter_name
from lotus2_ros.model.lotus2.trainable import TrainableLotus2
from lotus2_ros.model.manifest import (
    MANIFEST,
    METADATA,
    check_metadata,
    choose_tasks,
    naming,
    plain_config,
    read_manifest,
)
from lotus2_ros.model.weights import assign_weights, check_weights, read_weights, stored_state

FORMAT = 1
FAMILY = "lotus-2"
WEIGHTS = "model.safetensors"


def save_bundle(model: TrainableLotus2, folder: str | Path, *, metadata: Mapping[str, Any], dtype: torch.dtype) -> None:
    """Write a model as a bundle, its weights in `dtype`.

    metadata: `name` and `licence`; optionally `sources`, {file: sha256} of what it was made from, and `card`, free.
    """
    check_metadata(metadata)
    _check_packing(model)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    number_format = str(dtype).removeprefix("torch.")
    manifest = {
        "format": FORMAT,
        "family": FAMILY,
        **{key: metadata[key] for key in METADATA if key in metadata},
        "tasks": list(model.tasks),
        "stages": {task: [CORE] + ([SHARPENER] if model.has_sharpener(task) else []) for task in model.tasks},
        "dtype": number_format,
        "precision": number_format,
        "conditioning": model.conditioning,
        "process_resolution": model.process_resolution,
        "process_by_area": model.process_by_area,
        "antialias": model.antialias,
        "sharpener_steps": model.sharpener_steps,
        "sharpens": model.sharpens,
        "prompt_tokens": model.conditioner.prompt_embeds.shape[1],
        "adapters": {
            name: {"rank": config.r, "alpha": config.lora_alpha, "targets": _targets(config.target_modules)}
            for name, config in sorted(model.adapters.items())
        },
        "components": {
            "vae": plain_config(model.vae.config),
            "transformer": plain_config(model.transformer.config),
            "scheduler": plain_config(model.scheduler.config),
        },
    }
    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in stored_state(model).items()}
    # Replaced as a whole: the old file may be mapped into this very model.
    save_file(state, folder / f"{WEIGHTS}.part")
    (folder / f"{WEIGHTS}.part").replace(folder / WEIGHTS)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def load_bundle(
    folder: str | Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    tasks: Sequence[str] | None = None,
    conditioning: str | None = None,
) -> TrainableLotus2:
    """The bundle's model, ready to run. `tasks`: a part of the bundle's; `conditioning`: the bundle's own if None."""
    folder = Path(folder)
    path = folder / MANIFEST
    manifest = read_manifest(path, {FAMILY: (FORMAT,)})
    with naming(path):
        wanted = choose_tasks(manifest["tasks"], tasks, folder)
        model = _build(manifest, wanted, conditioning or manifest["conditioning"])
    left_out = [task for task in manifest["tasks"] if task not in wanted]
    path = folder / WEIGHTS
    tensors = {name: tensor for name, tensor in read_weights(path).items() if not _belongs_to(name, left_out)}
    check_weights(path, tensors, stored_state(model))
    assign_weights(model, tensors, device, model.dtype_of(dtype))
    return model.eval().requires_grad_(False)


def _build(manifest: Mapping[str, Any], tasks: Sequence[str], conditioning: str) -> TrainableLotus2:
    """The manifest's model for these tasks, without memory for its weights."""
    with torch.device("meta"):
        model = TrainableLotus2.from_config(
            *(manifest["components"][part] for part in ("vae", "transformer", "scheduler")),
            prompt_tokens=manifest["prompt_tokens"],
            tasks=tasks,
            process_resolution=manifest["process_resolution"],
            process_by_area=manifest.get("process_by_area", False),
            antialias=manifest["antialias"],
            sharpener_steps=manifest["sharpener_steps"],
            sharpens=manifest.get("sharpens", True),
            conditioning=conditioning,
            metadata={key: manifest[key] for key in METADATA if key in manifest},
        )
        for task in tasks:
            for stage in manifest["stages"][task]:
                adapter = manifest["adapters"].get(adapter_name(stage, task))
                if adapter is not None:
                    model.add_adapter(stage, task, adapter["rank"], adapter["alpha"], adapter["targets"])
    _check_packing(model)
    return model


def _check_packing(model: TrainableLotus2) -> None:
    """Other networks can be trained, to be compared, but not run."""
    taken, packed = model.transformer.config.in_channels, 4 * model.vae.config.latent_channels
    if taken != packed:
        raise ValueError(f"expected a model that takes the image's latent packed 2x2, {packed} channels, got {taken}")


def _targets(targets: str | Iterable[str]) -> str | list[str]:
    return targets if isinstance(targets, str) else sorted(targets)


def _belongs_to(parameter: str, tasks: Sequence[str]) -> bool:
    return any(
        parameter.startswith(f"continuity.{task}.")
        or any(f".{adapter_name(stage, task)}." in parameter for stage in (CORE, SHARPENER))
        for task in tasks
    )
