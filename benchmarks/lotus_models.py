"""Lotus-D and Lotus-G to measure: random ones of their true size, or tiny."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.models import TINY as TINY_LOTUS2
from benchmarks.models import VAE as FLUX_VAE
from lotus2_ros.model.lotus.lotus import Lotus
from lotus2_ros.model.manifest import ModelSettings

FAMILIES = ("lotus-d", "lotus-g")
VAE = {key: value for key, value in FLUX_VAE.items() if not key.startswith(("use_", "shift"))} | {
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
UNET = {
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "use_linear_projection": True,
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": 4,
}
TRUE = {"vae": VAE, "unet": UNET}
SMALL = {
    "vae": VAE
    | {key: TINY_LOTUS2.configs["vae"][key] for key in ("block_out_channels", "layers_per_block", "norm_num_groups")},
    "unet": UNET
    | {
        "block_out_channels": (16, 32, 32, 32),
        "attention_head_dim": 4,
        "cross_attention_dim": 24,
        "layers_per_block": 1,
        "norm_num_groups": 4,
    },
}
PROMPT_TOKENS = 2
PROCESS_RESOLUTION = 1024  # as those of Lotus-2 are measured


def build_lotus(
    family: str, configs: Mapping[str, Mapping[str, Any]], tasks: tuple[str, ...], samples: int = 1
) -> Lotus:
    """A model of either family, its weights as torch makes them; it works at the image's own size."""
    channels = configs["vae"]["latent_channels"] * (2 if family == "lotus-g" else 1)
    return Lotus(
        {"vae": configs["vae"], "unet": {**configs["unet"], "in_channels": channels}},
        ModelSettings(tasks=tasks, process_resolution=PROCESS_RESOLUTION),
        prompt_shape=(PROMPT_TOKENS, configs["unet"]["cross_attention_dim"]),
        samples=samples,
        metadata={"name": family, "licence": "none"},
    )


def make_lotus1(
    family: str,
    configs: Mapping[str, Mapping[str, Any]],
    tasks: tuple[str, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> Lotus:
    """The same, made on the device itself and ready to run."""
    torch.manual_seed(0)
    with torch.device(device):
        model = build_lotus(family, configs, tasks)
    return model.to(dtype).eval().requires_grad_(False)
