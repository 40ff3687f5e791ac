"""Weights in the layouts of other programs, under the names of diffusers, by diffusers' own converters.

FLUX transformers as Black Forest Labs publish them, `flux1-dev.safetensors`
VAEs as Black Forest Labs (`ae.safetensors`) and the first Stable Diffusion named their weights
VAEs of older versions of diffusers
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_ldm_vae_checkpoint,
)
from torch import Tensor

from lotus2_ros.model.layers.precision import dtype_name
from lotus2_ros.model.weights import EXPECTED, CheckpointError, Weights, open_weights

# In checkpoints that have text encoders and VAE, too.
PREFIX = "model.diffusion_model."
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
# Rows that stand for a weight in the conversion: the converter splits those of FLUX's single blocks 3072 x 7.
ROWS = 7 * 3072


@dataclass(frozen=True, eq=False)
class ConvertedWeights:
    """A file in another layout. `tensor` reads a weight by its name in diffusers."""

    path: Path
    header: Mapping[str, Tensor]
    tensor: Callable[[str], Tensor]

    def read(self, key: str) -> Tensor:
        return self.tensor(key)


def open_component(file: Path, config: Mapping[str, Any]) -> Mapping[str, Weights]:
    """The home of each weight of a transformer or VAE with this config in diffusers, by its name there.

    file: a weight file or the index of shards, in diffusers' or one of the other layouts. Raises CheckpointError that
    names file and key.
    """
    homes: Mapping[str, Weights] = open_weights(file)
    if prefixed := [key for key in homes if key.startswith(PREFIX)]:
        homes = {key: homes[key] for key in prefixed}
    for key, home in homes.items():
        if home.header[key].dtype not in FLOATS:
            dtype = dtype_name(home.header[key].dtype)
            raise CheckpointError(f"{home.path}: {key} is in {dtype}, a quantized checkpoint; {EXPECTED}")
    if any(key.removeprefix(PREFIX).startswith("double_blocks.") for key in homes):
        converted: Weights = _convert_flux(file, homes)
        return dict.fromkeys(converted.header, converted)
    if any(re.search(r"\b(encoder\.down|decoder\.up)\.0\.", key) for key in homes):
        converted = _convert_vae(file, homes, config)
        return dict.fromkeys(converted.header, converted)
    if any(re.search(r"\.attentions\.\d+\.query\.", key) for key in homes):
        names = {_new_attention(key): key for key in homes}
        converted = ConvertedWeights(
            file,
            {name: homes[key].header[key] for name, key in names.items()},
            lambda name: homes[names[name]].read(names[name]),
        )
        return dict.fromkeys(names, converted)
    return homes


def _convert_flux(file: Path, homes: Mapping[str, Weights]) -> ConvertedWeights:
    """The converter is given row numbers in place of weights, which tell what rows of which weight it takes for what.

    So a weight is read when it is asked for, and not the whole file at once.
    """
    keys = {key.removeprefix(PREFIX): key for key in sorted(homes)}
    names = list(keys)
    rows = {name: torch.arange(i * ROWS, (i + 1) * ROWS, dtype=torch.int32) for i, name in enumerate(names)}
    try:
        converted = convert_flux_transformer_checkpoint_to_diffusers(rows)
    except KeyError as error:
        raise CheckpointError(f"{file}: missing key {error.args[0]}") from None
    if rows:  # the converter removes what it takes
        raise CheckpointError(f"{file}: unexpected key {keys[min(rows)]}")
    # Diffusers' name -> key, and its rows as pairs of numbers out of ROWS.
    places: dict[str, tuple[str, list[tuple[int, int]]]] = {}
    for name, numbers in converted.items():
        breaks = [0, *(1 + (numbers.diff() != 1).nonzero().flatten()).tolist(), len(numbers)]
        spans = [(int(numbers[i]) % ROWS, int(numbers[j - 1]) % ROWS + 1) for i, j in itertools.pairwise(breaks)]
        places[name] = keys[names[int(numbers[0]) // ROWS]], spans

    def take(name: str, weight: Tensor) -> Tensor:
        pieces = [weight[start * len(weight) // ROWS : stop * len(weight) // ROWS] for start, stop in places[name][1]]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    header = {name: take(name, homes[key].header[key]) for name, (key, _) in places.items()}
    return ConvertedWeights(file, header, lambda name: take(name, homes[places[name][0]].read(places[name][0])))


def _convert_vae(file: Path, homes: Mapping[str, Weights], config: Mapping[str, Any]) -> ConvertedWeights:
    # A VAE is small.
    tensors = convert_ldm_vae_checkpoint({key: home.read(key) for key, home in homes.items()}, config)
    return ConvertedWeights(file, {key: tensor.to("meta") for key, tensor in tensors.items()}, tensors.__getitem__)


def _new_attention(key: str) -> str:
    return re.sub(
        rf"(\.attentions\.\d+)\.({'|'.join(OLD_ATTENTION)})\.", lambda m: f"{m[1]}.{OLD_ATTENTION[m[2]]}.", key
    )
