"""The fused FLUX transformer, from patches of the packed latent to patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lotus2_ros.model.layers.adaln import AdaLN, Timesteps
from lotus2_ros.model.layers.lora import LoraLinear
from lotus2_ros.model.lotus2.base import FusedPlan
from lotus2_ros.model.lotus2.blocks import PLAIN, DoubleBlock, Head, LastBlock, Rotary, SingleBlock
from lotus2_ros.model.lotus2.conditioning import position_ids

ROTARY_BASE = 10000


class FusedFlux(nn.Module):
    """The transformer. config: with the keys of diffusers' `FluxTransformer2DModel`."""

    prompt: Tensor

    def __init__(self, config: Mapping[str, Any], plan: FusedPlan, prompt_tokens: int, highest_timestep: float) -> None:
        super().__init__()
        head_size, channels = config["attention_head_dim"], config["in_channels"]
        width = config["num_attention_heads"] * head_size
        self.rotary_axes = tuple(config["axes_dims_rope"])
        self.register_buffer("prompt", torch.empty(1, prompt_tokens, width))
        self.timesteps = Timesteps(highest_timestep, *plan.timesteps)
        self.embedder = LoraLinear(replace(plan, precision=PLAIN), ["x_embedder"], channels, [width])
        self.double_blocks = nn.ModuleList(
            DoubleBlock(plan, i, width, head_size, prompt_tokens) for i in range(config["num_layers"])
        )
        last = config["num_single_layers"] - 1
        self.single_blocks = nn.ModuleList(SingleBlock(plan, i, width, head_size) for i in range(last))
        self.single_blocks.append(LastBlock(plan, last, width, head_size, prompt_tokens))
        self.head = Head(plan, width, config.get("out_channels") or channels)

    @property
    def blocks(self) -> list[AdaLN]:
        return [*self.double_blocks, *self.single_blocks]

    def modulation(self, timesteps: Tensor) -> Tensor:
        """The modulation of all blocks at timesteps (B,) on the model's own scale: (B, n) float32."""
        weights = self.timesteps(timesteps)
        return torch.cat([weights @ block.modulation for block in (*self.blocks, self.head)], dim=1)

    def rotary(self, rows: int, columns: int) -> Rotary:
        """Cosine and signed sine, (T + L, 1, head_size) each, for the prompt and a packed latent of rows x columns."""
        positions = position_ids(self.prompt, rows, columns).double()[:, None]
        angles = []
        for axis, size in enumerate(self.rotary_axes):
            channels = torch.arange(0, size, 2, dtype=torch.float64, device=positions.device)
            angles.append(positions[..., axis, None] * (1 / ROTARY_BASE ** (channels / size)))
        angle = torch.cat(angles, dim=-1)
        cosine, sine = angle.cos().float(), angle.sin().float()
        return torch.cat((cosine, cosine), dim=-1), torch.cat((-sine, sine), dim=-1)

    def enter(self, patches: Tensor, adapters: tuple[str, ...]) -> Tensor:
        """Patches (B, L, C) -> tokens (B, T + L, D), first those of the prompt."""
        image = self.embedder(patches, adapters)
        return torch.cat((self.prompt.expand(len(image), -1, -1), image), dim=1)

    def forward(self, patches: Tensor, modulation: Tensor, rotary: Rotary, adapters: tuple[str, ...]) -> Tensor:
        """patches (B, L, C) of the packed latent -> (B, L, C). The batch is split evenly among the adapters."""
        sections = modulation.split([block.modulation.shape[1] for block in (*self.blocks, self.head)], dim=1)
        tokens = self.enter(patches, adapters)
        for block, section in zip(self.blocks, sections[:-1], strict=True):
            tokens = block(tokens, section, rotary, adapters)
        return self.head(tokens, sections[-1], adapters)
