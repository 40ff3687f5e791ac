"""The released layout: FLUX.1-dev, and the six `lotus-2_*` files in the same or another folder."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lotus2_ros.model.layers.lora import LoraSpec
from lotus2_ros.model.layouts import open_component
from lotus2_ros.model.lotus2.base import CORE, SHARPENER, adapter_name
from lotus2_ros.model.lotus2.flux_layout import flux_config, flux_file, flux_folder
from lotus2_ros.model.lotus2.manifest import TransformerConfig
from lotus2_ros.model.lotus2.scheduler import Scheduler
from lotus2_ros.model.lotus2.source import Source
from lotus2_ros.model.lotus2.trainable import EMBEDDINGS, LORA_TARGETS, TrainableLotus2, is_base
from lotus2_ros.model.manifest import TASKS, FloatName, ModelSettings, Task, choose_tasks, naming
from lotus2_ros.model.prompt import T5_TOKENS, check_encoders, embed_empty_prompt
from lotus2_ros.model.vae import VaeConfig
from lotus2_ros.model.weights import (
    CheckpointError,
    WeightFile,
    Weights,
    check_keys,
    check_weights,
    stored_state,
)

# Names of tasks and modules -> their names in file names.
FILE_NAMES = {"depth": "depth", "normals": "normal", "continuity": "lcm", CORE: CORE, SHARPENER: SHARPENER}
# How the released model was trained; its files do not say.
PROCESS_RESOLUTION = 1024
TIMESTEP_DTYPE: FloatName = "bfloat16"
NAME = "lotus-2"
# FLUX.1-dev's license applies to everything built on it; Lotus-2's own license is permissive.
LICENSE = "FLUX.1 [dev] Non-Commercial License"
SHARPENER_TRAIN_TIMESTEPS = 10


def open_released(
    flux: Path,
    lotus2: Path,
    *,
    tasks: Sequence[str] | None = None,
    timestep_dtype: FloatName | None = None,
    device: torch.device | None = None,
) -> Source:
    """The released model as a `Source`. lotus2: the folder of the `lotus-2_*` files.

    flux: FLUX's diffusers folder, in which `flux1-dev.safetensors` and `ae.safetensors` may be in place of transformer/
    and vae/; or a single file of the transformer, beside which the other components are. device: of the text encoders,
    by default the CPU. The headers of all files are checked before any tensor is read. Raises CheckpointError that
    names file and key.
    """
    chosen = choose_tasks(TASKS, tasks, lotus2)
    adapters = {}
    for stage, task in product((CORE, SHARPENER), chosen):
        rank = adapter_rank(WeightFile(lotus2_file(lotus2, stage, task)))
        adapters[adapter_name(stage, task)] = LoraSpec(rank, 1.0, LORA_TARGETS)
    return _source(flux, lotus2, adapters, chosen, timestep_dtype or TIMESTEP_DTYPE, device)


def open_flux(flux: Path, *, tasks: Sequence[str], device: torch.device | None = None) -> Source:
    """FLUX.1-dev alone as a `Source`, to be trained: without LoRAs, and without weights for the continuity modules."""
    return _source(flux, None, {}, choose_tasks(TASKS, tasks, flux), TIMESTEP_DTYPE, device)


def load_released(
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    tasks: Sequence[str] | None = None,
    timestep_dtype: FloatName | None = None,
) -> TrainableLotus2:
    """The released model in memory, in its trainable form, from one folder with all files."""
    source = open_released(folder, folder, tasks=tasks, timestep_dtype=timestep_dtype, device=device)
    return TrainableLotus2.load(source, device, dtype)


def load_adapters(model: TrainableLotus2, lotus2: Path) -> None:
    """Read LoRAs and continuity modules into the model; they keep their dtype. A sharpener without a file is unchanged.

    Raises CheckpointError that names file and key.
    """
    own = {
        name: tensor
        for name, tensor in stored_state(model).items()
        if not is_base(name) and (SHARPENER not in name or locate(lotus2, lotus2, name)[0].exists())
    }
    for name, (file, key) in _locate_all(own, lotus2, lotus2).items():
        own[name].copy_(file.read(key))


def save_adapters(model: TrainableLotus2, lotus2: Path) -> None:
    """Write LoRAs and continuity modules in the released layout. Each file is replaced as a whole."""
    contents: dict[Path, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in stored_state(model).items():
        if not is_base(name):
            file, key = locate(lotus2, lotus2, name)
            contents[file][key] = tensor.detach().cpu().contiguous()
    lotus2.mkdir(parents=True, exist_ok=True)
    for file, weights in contents.items():
        partial = file.with_suffix(".part")
        # The reference reads the continuity module's file with torch.load, in spite of its name.
        write = torch.save if FILE_NAMES["continuity"] in file.name else save_file
        write(weights, partial)
        partial.replace(file)


def lotus2_files(tasks: Sequence[str]) -> list[str]:
    """The names of the Lotus-2 files for some tasks."""
    return [lotus2_file(Path(), part, task).name for task in tasks for part in (CORE, SHARPENER, "continuity")]


def lotus2_file(folder: Path, part: str, task: str) -> Path:
    return folder / f"lotus-2_{FILE_NAMES[part]}_{FILE_NAMES[task]}.safetensors"


def locate(flux: Path, lotus2: Path, name: str) -> tuple[Path, str]:
    """The released file (or index of shards) of a parameter, and its key there."""
    if match := re.fullmatch(r"continuity\.(\w+)\.layers\.(.+)", name):
        return lotus2_file(lotus2, "continuity", match[1]), f"lcm.{match[2]}"
    if match := re.fullmatch(rf"(.+\.lora_[AB])\.({CORE}|{SHARPENER})_(\w+)(\.weight)", name):
        return lotus2_file(lotus2, match[2], match[3]), match[1] + match[4]
    component, key = name.split(".", 1)
    return flux_file(flux, component), key


def adapter_rank(file: WeightFile) -> int:
    """The rank of a LoRA file. Its alpha equals the rank and is not stored."""
    ranks = {tensor.shape[0] for key, tensor in file.header.items() if key.endswith(".lora_A.weight")}
    if len(ranks) != 1:
        raise CheckpointError(f"{file.path}: expected LoRA weights of one rank, got ranks {sorted(ranks)}")
    return ranks.pop()


def _source(
    flux: Path,
    lotus2: Path | None,
    adapters: Mapping[str, LoraSpec],
    tasks: tuple[Task, ...],
    timestep_dtype: FloatName,
    device: torch.device | None,
) -> Source:
    folder = flux_folder(flux)
    steps = {"num_train_timesteps": SHARPENER_TRAIN_TIMESTEPS}
    configs = {
        "vae": flux_config(VaeConfig, flux, "vae"),
        "transformer": flux_config(TransformerConfig, flux, "transformer"),
        "scheduler": flux_config(Scheduler, flux, "scheduler") | steps,
    }
    places: dict[str, tuple[Weights, str]] = {}

    def read(name: str) -> Tensor:
        file, key = places[name]
        return file.read(key)

    def embed_prompt() -> tuple[Tensor, Tensor]:
        prompt_embeds, pooled = embed_empty_prompt(folder, device=device or torch.device("cpu"))
        _check_embedding(folder / "text_encoder_2", prompt_embeds, shapes["conditioner.prompt_embeds"])
        _check_embedding(folder / "text_encoder", pooled, shapes["conditioner.pooled"])
        return prompt_embeds, pooled

    settings = ModelSettings(tasks=tasks, process_resolution=PROCESS_RESOLUTION, timestep_dtype=timestep_dtype)
    metadata = {"name": NAME, "licence": LICENSE}
    with naming(flux_folder(flux) / "transformer" / "config.json"):
        source = Source(configs, adapters, settings, T5_TOKENS, metadata, read, embed_prompt)
        shapes = source.shapes()
    stored = {name: tensor for name, tensor in shapes.items() if lotus2 is not None or is_base(name)}
    places |= _locate_all(stored, flux, lotus2 or flux, configs["vae"])
    check_encoders(folder)
    return source


def _locate_all(
    shapes: Mapping[str, Tensor], flux: Path, lotus2: Path, vae: Mapping[str, Any] | None = None
) -> Mapping[str, tuple[Weights, str]]:
    """File and key of each weight; keys and shapes are checked against the model. vae: the config of its VAE."""
    expected: dict[Path, dict[str, str]] = defaultdict(dict)
    for name in (name for name in shapes if name not in EMBEDDINGS):
        file, key = locate(flux, lotus2, name)
        expected[file][key] = name
    places: dict[str, tuple[Weights, str]] = {}
    for file, names in sorted(expected.items()):
        homes = open_component(file, vae or {})
        check_keys(file, homes, names)
        for home in dict.fromkeys(homes.values()):
            inside = {key: shapes[name] for key, name in names.items() if homes[key] is home}
            check_weights(home.path, home.header, inside)
        places |= {name: (homes[key], key) for key, name in names.items()}
    return places


def _check_embedding(folder: Path, embedding: Tensor, expected: Tensor) -> None:
    if embedding.shape != expected.shape:
        raise CheckpointError(
            f"{folder}: expected a prompt embedding of shape {tuple(expected.shape)}, as the transformer takes, "
            f"got {tuple(embedding.shape)}"
        )
