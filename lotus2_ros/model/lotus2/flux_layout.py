"""Where FLUX.1-dev's components are: in folders of diffusers, or in single files as Black Forest Labs publish them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lotus2_ros.model.components import ComponentConfig
from lotus2_ros.model.layouts import PREFIX
from lotus2_ros.model.manifest import first_problem, plain_config
from lotus2_ros.model.weights import CheckpointError, WeightFile, read_json, weight_file

# The files of FLUX.1-dev that are read.
FLUX_FILES = (
    "scheduler/*.json",
    *(f"{name}/*" for name in ("tokenizer", "tokenizer_2")),
    *(f"{name}/*.{kind}" for name in ("text_encoder", "text_encoder_2") for kind in ("json", "safetensors")),
    *(f"{name}/*.{kind}" for name in ("transformer", "vae") for kind in ("json", "safetensors")),
)

# Files of Black Forest Labs in place of a folder of diffusers.
SINGLE_FILES = {"transformer": "flux1-dev.safetensors", "vae": "ae.safetensors"}
# Configs of diffusers that belong to these files.
SINGLE_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
SCHEDULER = {"use_dynamic_shifting": True, "shift": 3.0}


def flux_files(flux: Path) -> list[str]:
    """The existing files among FLUX_FILES, and single files in place of them, in a fixed order."""
    folder = flux_folder(flux)
    found = [file for pattern in FLUX_FILES for file in sorted(folder.glob(pattern))]
    single = [file for file in (flux_file(flux, "transformer"), flux_file(flux, "vae")) if file.parent == folder]
    return [str(file.relative_to(folder)) for file in (*found, *single) if file.is_file()]


def flux_folder(flux: Path) -> Path:
    """The folder of FLUX's components, where `flux` may be a single file with the transformer."""
    return flux.parent if flux.is_file() else flux


def flux_file(flux: Path, component: str) -> Path:
    """The weight file of FLUX's transformer or VAE: in diffusers' layout, or a single file of Black Forest Labs'."""
    if component == "transformer" and flux.is_file():
        return flux
    file, single = weight_file(flux_folder(flux) / component), flux_folder(flux) / SINGLE_FILES[component]
    return single if single.is_file() and not file.is_file() else file


def _single_config(file: Path) -> dict[str, Any]:
    """The config in diffusers of a FLUX transformer in Black Forest Labs' layout, which has none."""
    shapes = {key.removeprefix(PREFIX): tensor.shape for key, tensor in WeightFile(file).header.items()}
    blocks = {
        kind: len({key.split(".")[1] for key in shapes if key.startswith(f"{kind}_blocks.")})
        for kind in ("double", "single")
    }
    try:
        head, (width, channels) = shapes["double_blocks.0.img_attn.norm.query_norm.scale"][0], shapes["img_in.weight"]
        return {
            "in_channels": channels,
            "num_layers": blocks["double"],
            "num_single_layers": blocks["single"],
            "attention_head_dim": head,
            "num_attention_heads": width // head,
            "joint_attention_dim": shapes["txt_in.weight"][1],
            "pooled_projection_dim": shapes["vector_in.in_layer.weight"][1],
            "guidance_embeds": "guidance_in.in_layer.weight" in shapes,
            "axes_dims_rope": (head // 8, 7 * head // 16, 7 * head // 16),
        }
    except KeyError as error:
        raise CheckpointError(f"{file}: missing key {error.args[0]}") from None


def flux_config(kind: type[ComponentConfig], flux: Path, component: str) -> dict[str, Any]:
    """A component's config, complete. Raises CheckpointError."""
    file = flux_folder(flux) / component / ("scheduler_config.json" if component == "scheduler" else "config.json")
    try:
        return kind(**_config(flux, component, file)).model_dump()
    except ValidationError as error:
        raise CheckpointError(f"{file}: {first_problem(error)}") from None


def _config(flux: Path, component: str, file: Path) -> dict[str, Any]:
    """A component's config. Single files need none."""
    single = flux_file(flux, "transformer" if component == "scheduler" else component)
    if file.is_file() or single.parent != flux_folder(flux):
        return plain_config(read_json(file))
    return _single_config(single) if component == "transformer" else SINGLE_VAE if component == "vae" else SCHEDULER
