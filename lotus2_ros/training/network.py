"""The network of a training run, from nothing, and which of its weights a stage trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lotus2_ros.model.interface import GeometryModel
from lotus2_ros.model.lotus.lotus import Lotus
from lotus2_ros.model.lotus2.base import CORE, SHARPENER, adapter_name
from lotus2_ros.model.lotus2.trainable import LORA_TARGETS, TrainableLotus2, is_base
from lotus2_ros.training.batches import Batch
from lotus2_ros.training.config import NetworkConfig, StageConfig, Task, UnetConfig
from lotus2_ros.training.latents import TrainedPart, encode
from lotus2_ros.training.objectives import StochasticFlow

# A small base takes its second task best when the adapter reaches every linear of the blocks and the output.
CORE_TARGETS = LORA_TARGETS + r"|single_transformer_blocks\.\d+\.(proj_mlp|proj_out)|proj_out"

# Lotus-D and Lotus-G from nothing: their prompt is constant, so any will do.
PROMPT_TOKENS, PROMPT_CHANNELS = 2, 16


def build(network: NetworkConfig, tasks: tuple[Task, ...], stages: tuple[StageConfig, ...]) -> TrainableLotus2:
    """The untrained model: the base is the first task's core, all else adapters on it."""
    given = network.latent_channels * network.patch**2
    beside = any(isinstance(stage.objective, StochasticFlow) for stage in stages)
    model = TrainableLotus2.from_config(
        vae_config(network),
        {
            "patch_size": 1,
            "in_channels": 2 * given if beside else given,
            "out_channels": given,
            "num_layers": network.double_blocks,
            "num_single_layers": network.single_blocks,
            "attention_head_dim": network.head_size,
            "num_attention_heads": network.heads,
            "joint_attention_dim": 16,
            "pooled_projection_dim": 16,
            "guidance_embeds": True,
            "axes_dims_rope": network.rotary_axes,
        },
        {"num_train_timesteps": 10, "shift": 1.0, "use_dynamic_shifting": False},
        prompt_tokens=network.prompt_tokens,
        tasks=tasks,
        process_resolution=network.process_resolution,
        process_by_area=network.process_by_area,
        antialias=True,
        sharpener_steps=network.sharpener_steps,
        sharpens=network.sharpens,
    )
    first = min((stage.single_blocks or network.single_blocks for stage in stages), default=network.single_blocks)
    for block in model.transformer.single_transformer_blocks[first:]:
        for parameter in block.proj_out.parameters():  # it adds nothing until it is trained
            torch.nn.init.zeros_(parameter)
    for task in tasks[1:]:
        model.add_adapter(CORE, task, network.core_rank, targets=CORE_TARGETS)
    if any(stage.objective.part() == "sharpener" for stage in stages):
        for task in tasks:
            model.add_adapter(SHARPENER, task, network.sharpener_rank)
    return model


def build_lotus(network: UnetConfig, tasks: tuple[Task, ...]) -> Lotus:
    """The untrained Lotus-D or Lotus-G, a U-Net for each task; attention on all levels but the finest."""
    levels, channels = len(network.widths), network.latent_channels
    down = ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (levels - 1)
    unet = {
        "in_channels": 2 * channels if network.generative else channels,
        "out_channels": channels,
        "block_out_channels": network.widths,
        "down_block_types": down,
        "up_block_types": tuple(kind.replace("Down", "Up") for kind in reversed(down)),
        "layers_per_block": network.layers,
        "attention_head_dim": network.heads,  # diffusers' name for their number
        "cross_attention_dim": PROMPT_CHANNELS,
        "norm_num_groups": network.groups,
        "use_linear_projection": True,
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": 4,
    }
    return Lotus(
        {"vae": vae_config(network), "unet": unet},
        tasks=tasks,
        predicts="disparity",
        prompt_shape=(PROMPT_TOKENS, PROMPT_CHANNELS),
        process_resolution=network.process_resolution,
        enlarges=False,
    )


def vae_config(network: NetworkConfig | UnetConfig) -> dict[str, Any]:
    depth = len(network.vae_widths)
    return {
        "block_out_channels": network.vae_widths,
        "down_block_types": ("DownEncoderBlock2D",) * depth,
        "up_block_types": ("UpDecoderBlock2D",) * depth,
        "latent_channels": network.latent_channels,
        "norm_num_groups": network.vae_groups,
        "layers_per_block": 1,
        "mid_block_add_attention": False,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "force_upcast": False,
        "scaling_factor": 1.0,
        "shift_factor": 0.0,
    }


@contextmanager
def shallow(model: TrainableLotus2 | Lotus, single_blocks: int | None) -> Iterator[None]:
    """In it the transformer has only its first `single_blocks`, all if None, and so has what `parameters_of` gives."""
    if single_blocks is None or isinstance(model, Lotus):  # a U-Net has none: the configuration sees to it
        yield
        return
    transformer: Any = model.transformer
    blocks = transformer.single_transformer_blocks
    transformer.single_transformer_blocks = blocks[:single_blocks]
    try:
        yield
    finally:
        transformer.single_transformer_blocks = blocks


def parameters_of(model: TrainableLotus2 | Lotus, part: TrainedPart) -> dict[str, Tensor]:
    """What a stage trains. The core: adapters and continuity modules, with a base that is itself the core predictor of
    some task, and the VAE's decoder if that is said; the sharpener: its adapters."""
    adapters = model.adapters if isinstance(model, TrainableLotus2) else {}
    frozen = all(adapter_name(CORE, task) in adapters for task in model.tasks)

    def belongs(name: str) -> bool:
        if part == "vae" or name.startswith("vae."):
            trained = {"vae": "vae.", "core_and_decoder": "vae.decoder."}.get(part)
            return trained is not None and name.startswith(trained)
        return (SHARPENER in name) == (part == "sharpener") and not (frozen and is_base(name))

    return {name: parameter for name, parameter in model.named_parameters() if belongs(name)}


def measure_latents(model: GeometryModel, batches: list[Batch]) -> None:
    """Shift and scale that bring the latents of images and annotations to mean 0 and standard deviation 1."""
    model.vae.register_to_config(shift_factor=0.0, scaling_factor=1.0)
    latents = torch.cat([part.flatten() for batch in batches for part in encode(model, batch.to(model.device))])
    model.vae.register_to_config(shift_factor=float(latents.mean()), scaling_factor=1 / float(latents.std()))
