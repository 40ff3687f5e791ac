"""The released layout of Lotus-D and Lotus-G: a diffusers pipeline folder for each task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lotus2_ros.geometry.depth import Space
from lotus2_ros.model.layouts import open_component
from lotus2_ros.model.lotus.lotus import Lotus
from lotus2_ros.model.manifest import ModelSettings, naming, plain_config
from lotus2_ros.model.prompt import embed_unpadded_prompt
from lotus2_ros.model.weights import CheckpointError, check_keys, check_weights, read_json, weight_file

INDEX = "model_index.json"
PIPELINES = {"LotusDPipeline": "lotus-d", "LotusGPipeline": "lotus-g"}
PARTS = ("vae", "unet")
# How the released models were trained; their files do not say.
PROCESS_RESOLUTION = 768
LICENSE = "see the model's card; of the newer releases Apache-2.0"
# Kind of a released model -> its task and the space of its depth.
SAID: dict[str, tuple[str, Space]] = {
    "normals": ("normals", "disparity"),
    "disparity": ("depth", "disparity"),
    "depth": ("depth", "depth"),
}
# Words in folder names -> kind. The order matters: newer depth models are named lotus-depth-...-disparity.
WORDS = {"normal": "normals", "disparity": "disparity", "depth": "depth"}

WEIGHTS = "diffusion_pytorch_model"
# The files that are read of a released folder. Some folders hold the weights a second time in float16.
FILES = (
    "model_index.json",
    "tokenizer/*",
    *(f"{part}/config.json" for part in ("text_encoder", "unet", "vae")),
    *(
        f"{part}/{stem}{ending}"
        for part, stem in (("text_encoder", "model"), ("unet", WEIGHTS), ("vae", WEIGHTS))
        for ending in (".safetensors", ".safetensors.index.json", "-*.safetensors")
    ),
)


def files_of(folder: Path) -> list[str]:
    """The files of a released folder that are read, in a fixed order."""
    found = sorted({file for pattern in FILES for file in folder.glob(pattern)})
    return [str(file.relative_to(folder)) for file in found if file.is_file()]


def predicted_by(folder: Path) -> tuple[str, Space]:
    """Task and space (disparity or depth) of a released folder, by its name. Raises CheckpointError without one."""
    for word, said in WORDS.items():
        if word in folder.name.lower():
            return SAID[said]
    raise CheckpointError(
        f"{folder}: expected a name that says what it predicts, such as lotus-normal-d-v1-1 or "
        "lotus-depth-d-v2-0-disparity"
    )


def open_pipelines(folders: Mapping[str, Path], *, predicts: Space, **settings: Any) -> tuple[Lotus, dict[str, Tensor]]:
    """The model on the meta device, and its memory-mapped weights. folders: by task.

    All folders must have the same family and VAE. Raises CheckpointError that names file and key.
    """
    families = {folder: _family(folder) for folder in folders.values()}
    first = next(iter(folders.values()))
    for folder, family in families.items():
        if family != families[first]:
            raise CheckpointError(f"{folder}: expected a {families[first]} as in {first}, got a {family}")
    configs = {part: _config(folders, part) for part in PARTS}
    prompt = embed_unpadded_prompt(first)
    with naming(first / INDEX), torch.device("meta"):
        model = Lotus(
            configs,
            ModelSettings(
                tasks=tuple(folders),
                predicts=predicts,
                process_resolution=PROCESS_RESOLUTION,
                antialias=True,
                upscale=True,
            ),
            prompt_shape=(prompt.shape[1], prompt.shape[2]),
            metadata={"name": families[first], "licence": LICENSE},
            **settings,
        )
    if model.family != families[first]:
        raise CheckpointError(
            f"{first}: expected the U-Net of a {families[first]}, as the pipeline says, got that of a {model.family}"
        )
    if prompt.shape[2] != configs["unet"]["cross_attention_dim"]:
        raise CheckpointError(
            f"{first / 'text_encoder'}: expected a prompt embedding of {configs['unet']['cross_attention_dim']} "
            f"channels, as the U-Net takes, got {prompt.shape[2]}"
        )
    state = {"prompt_embeds": prompt}
    expected = model.state_dict()
    for task, folder in folders.items():
        vae_keys = {k.removeprefix("vae."): v for k, v in expected.items() if k.startswith("vae.")}
        vae = _read(folder / "vae", vae_keys, configs["vae"])
        _check_same(vae, state, folder)
        state |= {f"vae.{key}": tensor for key, tensor in vae.items()}
        prefix = f"unets.{task}."
        unet = {k.removeprefix(prefix): v for k, v in expected.items() if k.startswith(prefix)}
        state |= {prefix + key: tensor for key, tensor in _read(folder / "unet", unet, configs["unet"]).items()}
    return model, state


def _family(folder: Path) -> str:
    kind = read_json(folder / INDEX).get("_class_name")
    if kind not in PIPELINES:
        raise CheckpointError(f"{folder / INDEX}: expected a {' or '.join(PIPELINES)}, got {kind}")
    return PIPELINES[kind]


def _config(folders: Mapping[str, Path], part: str) -> dict[str, Any]:
    configs = [plain_config(read_json(folder / part / "config.json")) for folder in folders.values()]
    for folder, config in zip(folders.values(), configs, strict=True):
        if config != configs[0]:
            raise CheckpointError(
                f"{folder / part / 'config.json'}: expected that of the other task's folder, got another"
            )
    return configs[0]


def _read(component: Path, expected: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    file = weight_file(component)
    homes = open_component(file, config)
    check_keys(file, homes, expected)
    for home in dict.fromkeys(homes.values()):
        inside = {key: tensor for key, tensor in expected.items() if homes[key] is home}
        check_weights(home.path, home.header, inside)
    return {key: home.read(key) for key, home in homes.items()}


def _check_same(vae: Mapping[str, Tensor], state: Mapping[str, Tensor], folder: Path) -> None:
    for key, tensor in vae.items():
        other = state.get(f"vae.{key}")
        if other is not None and not torch.equal(other, tensor):
            raise CheckpointError(f"{folder / 'vae'}: expected the {key} of the other task's folder, got another")
