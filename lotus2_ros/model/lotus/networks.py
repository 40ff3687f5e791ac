"""The network that a Lotus-D or Lotus-G training run begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from lotus2_ros.model.lotus.bundle import save_bundle
from lotus2_ros.model.lotus.lotus import Lotus
from lotus2_ros.model.manifest import ModelSettings, Task
from lotus2_ros.model.trainable import STORED, Count, SmallNetwork, TrainingStage, no_single_blocks

PROMPT_TOKENS, PROMPT_CHANNELS = 2, 16  # of a constant prompt; any size will do
PATCH = 2  # side in latent pixels of the squares whose features a prior gives, as in a Lotus-2


class UnetNetwork(SmallNetwork):
    """A small Lotus-D, or `generative` Lotus-G, from scratch: a U-Net for each task.

    widths: channels of the U-Net's levels, each of half the size of the one before. All levels but the finest have
    attention.
    """

    objectives: ClassVar[tuple[str, ...]] = ("autoencoder", "lotus", "lotus_end_to_end", "diffusion")

    source: Literal["unet"]
    generative: bool
    widths: tuple[int, ...]
    layers: Count
    heads: Count
    groups: Count

    def check(self, tasks: Sequence[Task], stages: Sequence[TrainingStage]) -> None:
        no_single_blocks(stages)
        if not self.generative and any(stage.objective.kind == "diffusion" for stage in stages):
            raise ValueError("expected network.generative: true for the objective diffusion, got false")

    def build(self, tasks: tuple[Task, ...], stages: Sequence[TrainingStage], device: torch.device) -> Lotus:
        levels, channels = len(self.widths), self.latent_channels
        features = self.prior.channels if self.prior else 0
        down = ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (levels - 1)
        unet = {
            "in_channels": (2 * channels if self.generative else channels) + features,
            "out_channels": channels,
            "block_out_channels": self.widths,
            "down_block_types": down,
            "up_block_types": tuple(kind.replace("Down", "Up") for kind in reversed(down)),
            "layers_per_block": self.layers,
            "attention_head_dim": self.heads,  # diffusers' name for their number
            "cross_attention_dim": PROMPT_CHANNELS,
            "norm_num_groups": self.groups,
            "use_linear_projection": True,
            "class_embed_type": "projection",
            "projection_class_embeddings_input_dim": 4,
        }
        configs = {"vae": self.vae_config(), "unet": unet}
        if self.prior is not None:
            configs["prior"] = self.prior.config(PATCH)
        model = Lotus(
            configs,
            ModelSettings(tasks=tasks, process_resolution=self.process_resolution, antialias=True),
            prompt_shape=(PROMPT_TOKENS, PROMPT_CHANNELS),
        )
        if model.prior is not None and self.prior is not None:
            self.prior.read_weights(model.prior)
        return model.to(device)

    def save(self, model: Lotus, folder: Path, metadata: Mapping[str, Any]) -> None:
        save_bundle(model, folder, metadata=metadata, dtype=STORED)
