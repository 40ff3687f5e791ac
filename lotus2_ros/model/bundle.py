"""A bundle: one folder with all that a model needs, `bundle.json` and safetensors. No text encoder, no pickle.

Here the form that can be trained on, all in `model.safetensors`: the weights are named as in
`AdaptedLotus2.state_dict()`, without PEFT's wrapping, and may be stored in a smaller dtype than they run in. The form
that only runs is in `folded_bundle.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import save_file

from lotus2_ros.model.adapted import AdaptedLotus2
from lotus2_ros.model.lotus2 import CORE, SHARPENER, adapter_name
from lotus2_ros.model.weights import CheckpointError, assign_weights, check_weights, read_weights, stored_state

FORMAT = 1
FAMILY = "lotus-2"
MANIFEST, WEIGHTS = "bundle.json", "model.safetensors"
METADATA = ("name", "licence", "sources", "card")


def save_bundle(model: AdaptedLotus2, folder: str | Path, *, metadata: Mapping[str, Any], dtype: torch.dtype) -> None:
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
) -> AdaptedLotus2:
    """The bundle's model, ready to run. `tasks`: a part of the bundle's; `conditioning`: the bundle's own if None."""
    folder = Path(folder)
    path = folder / MANIFEST
    manifest = read_manifest(path)
    with naming(path):
        wanted = choose_tasks(manifest["tasks"], tasks, folder)
        model = _build(manifest, wanted, conditioning or manifest["conditioning"])
    left_out = [task for task in manifest["tasks"] if task not in wanted]
    path = folder / WEIGHTS
    tensors = {name: tensor for name, tensor in read_weights(path).items() if not _belongs_to(name, left_out)}
    check_weights(path, tensors, stored_state(model))
    assign_weights(model, tensors, device, model.dtype_of(dtype))
    return model.eval().requires_grad_(False)


def _build(manifest: Mapping[str, Any], tasks: Sequence[str], conditioning: str) -> AdaptedLotus2:
    """The manifest's model for these tasks, without memory for its weights."""
    with torch.device("meta"):
        model = AdaptedLotus2.from_config(
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


def _check_packing(model: AdaptedLotus2) -> None:
    """Other networks can be trained, to be compared, but not run."""
    taken, packed = model.transformer.config.in_channels, 4 * model.vae.config.latent_channels
    if taken != packed:
        raise ValueError(f"expected a model that takes the image's latent packed 2x2, {packed} channels, got {taken}")


def check_metadata(metadata: Mapping[str, Any]) -> None:
    unknown = set(metadata) - set(METADATA)
    if unknown or not {"name", "licence"} <= set(metadata):
        raise ValueError(f"expected metadata name, licence and optionally sources, card; got {', '.join(metadata)}")


def read_manifest(
    path: Path, formats: Mapping[str, Sequence[int]] = MappingProxyType({FAMILY: (FORMAT,)})
) -> dict[str, Any]:
    """The manifest of a bundle of one of these formats, by family."""
    manifest = read_json(path)
    if manifest.get("format") not in formats.get(str(manifest.get("family")), ()):
        known = ", ".join(f"{' or '.join(map(str, numbers))} of family {family}" for family, numbers in formats.items())
        raise CheckpointError(
            f"{path}: expected format {known}, got format {manifest.get('format')} of family {manifest.get('family')}"
        )
    return manifest


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of a manifest with its path in front."""
    try:
        yield
    except KeyError as error:
        raise CheckpointError(f"{path}: missing key {error.args[0]}") from None
    except CheckpointError:
        raise
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"{path}: file not found")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A diffusers config without the library's own notes in it."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


def choose_tasks(available: Sequence[str], wanted: Sequence[str] | None, source: Path) -> tuple[str, ...]:
    missing = [task for task in wanted or () if task not in available]
    if missing:
        raise CheckpointError(f"{source}: has no task {missing[0]!r}; it has {', '.join(available)}")
    return tuple(wanted or available)


def _targets(targets: str | Iterable[str]) -> str | list[str]:
    return targets if isinstance(targets, str) else sorted(targets)


def _belongs_to(parameter: str, tasks: Sequence[str]) -> bool:
    return any(
        parameter.startswith(f"continuity.{task}.")
        or any(f".{adapter_name(stage, task)}." in parameter for stage in (CORE, SHARPENER))
        for task in tasks
    )
