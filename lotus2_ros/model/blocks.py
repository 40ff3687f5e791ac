"""FLUX's transformer as it runs: nothing constant in it, layers that share an input fused into one.

Compared with diffusers' `FluxTransformer2DModel`: the adaptive norms' layers and the embedders of timestep, guidance
and prompt are gone (`modulation.py`), linear layers on the same input are one, the last block computes for the prompt
only what the image attends to. In queries and keys the pairs that rotary embedding turns lie half a head apart instead
of side by side, which attention does not see; `fold.py` permutes the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_flux import FluxPosEmbed
from torch import Tensor, nn

from lotus2_ros.model.changes import AdaptedLinear, Plan
from lotus2_ros.model.modulation import Modulated, Timesteps

EPSILON = 1e-6
MLP_RATIO = 4
ROTARY_BASE = 10000
# The first and the last layer are small, and errors there are errors of the result.
PLAIN = "float32"

Rotary = tuple[Tensor, Tensor]


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """A layer norm whose shift and scale (1 or B, 1, D) come from outside."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=EPSILON), scale)


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """x (B, L, heads, D), its halves turned by the angles whose cosine and sine (L, 1, D / 2) are given."""
    cosine, sine = rotary
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, first * sine + second * cosine), dim=-1).to(x.dtype)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(B, L, heads, D) each, perhaps fewer queries -> (B, L of the queries, heads * D)."""
    attended = F.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
    return attended.transpose(1, 2).flatten(2)


class HeadNorms(nn.Module):
    """Root mean square norms of queries and keys, over each head; `sources`: the layers they come from."""

    def __init__(self, head_size: int, sources: tuple[str, str]) -> None:
        super().__init__()
        self.sources = sources
        self.query = nn.Parameter(torch.empty(head_size))
        self.key = nn.Parameter(torch.empty(head_size))

    def forward(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(F.rms_norm(x, x.shape[-1:], w, EPSILON) for x, w in ((query, self.query), (key, self.key)))  # type: ignore[return-value]


class Stream(nn.Module):
    """What a double block holds for the image's or for the prompt's tokens."""

    def __init__(self, plan: Plan, block: str, image: bool, width: int, head_size: int) -> None:
        super().__init__()
        attention = f"{block}.attn."
        projections = ("to_q", "to_k", "to_v") if image else ("add_q_proj", "add_k_proj", "add_v_proj")
        mlp = f"{block}.ff.net." if image else f"{block}.ff_context.net."
        self.head_size = head_size
        norm = attention + ("norm_" if image else "norm_added_")
        self.norms = HeadNorms(head_size, (norm + "q", norm + "k"))
        self.projection = AdaptedLinear(plan, [attention + name for name in projections], width, [width] * 3)
        self.out = AdaptedLinear(plan, [attention + ("to_out.0" if image else "to_add_out")], width, [width])
        self.widen = AdaptedLinear(plan, [mlp + "0.proj"], width, [MLP_RATIO * width])
        self.narrow = AdaptedLinear(plan, [mlp + "2"], MLP_RATIO * width, [width])

    def project(self, x: Tensor, table: list[Tensor], adapters: tuple[str, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, L, heads, D) each."""
        projected = self.projection(modulate(x, table[0], table[1]), adapters)
        query, key, value = projected.unflatten(-1, (3, -1, self.head_size)).unbind(2)
        return *self.norms(query, key), value

    def finish(self, x: Tensor, attended: Tensor, table: list[Tensor], adapters: tuple[str, ...]) -> Tensor:
        x = torch.addcmul(x, table[2], self.out(attended, adapters))
        hidden = F.gelu(self.widen(modulate(x, table[3], table[4]), adapters), approximate="tanh")
        return torch.addcmul(x, table[5], self.narrow(hidden, adapters))


class DoubleBlock(Modulated):
    """Attention over all tokens; prompt and image have weights of their own."""

    def __init__(self, plan: Plan, index: int, width: int, head_size: int, prompt_tokens: int) -> None:
        block = f"transformer_blocks.{index}"
        # Order of the table: shift, scale, gate of the attention, then of the multilayer perceptron.
        norms = [f"{block}.norm1.linear", f"{block}.norm1_context.linear"]
        super().__init__(norms, 6, (1, 4), width, plan.timesteps[1])
        self.prompt_tokens = prompt_tokens
        self.image = Stream(plan, block, True, width, head_size)
        self.prompt = Stream(plan, block, False, width, head_size)

    def forward(self, tokens: Tensor, table: Tensor, rotary: Rotary, adapters: tuple[str, ...]) -> Tensor:
        """tokens (B, T + L, D), the prompt's first; table (1 or B, n) of this block's modulation."""
        rows = list(table.unflatten(-1, (12, 1, -1)).unbind(1))
        prompt, image = tokens[:, : self.prompt_tokens], tokens[:, self.prompt_tokens :]
        of_prompt = self.prompt.project(prompt, rows[6:], adapters)
        of_image = self.image.project(image, rows[:6], adapters)
        query, key, value = (torch.cat(pair, dim=1) for pair in zip(of_prompt, of_image, strict=True))
        attended = attend(rotate(query, rotary), rotate(key, rotary), value)
        prompt = self.prompt.finish(prompt, attended[:, : self.prompt_tokens], rows[6:], adapters)
        image = self.image.finish(image, attended[:, self.prompt_tokens :], rows[:6], adapters)
        return clip(torch.cat((prompt, image), dim=1))


class SingleBlock(Modulated):
    """Attention and multilayer perceptron side by side, the same for all tokens."""

    def __init__(self, plan: Plan, index: int, width: int, head_size: int) -> None:
        block = f"single_transformer_blocks.{index}"
        super().__init__([f"{block}.norm.linear"], 3, (1,), width, plan.timesteps[1])
        self.width, self.head_size = width, head_size
        self.norms = HeadNorms(head_size, (f"{block}.attn.norm_q", f"{block}.attn.norm_k"))
        self._add_projections(plan, block, width)
        self.out = AdaptedLinear(plan, [f"{block}.proj_out"], (1 + MLP_RATIO) * width, [width])

    def _add_projections(self, plan: Plan, block: str, width: int) -> None:
        names = [f"{block}.attn.to_q", f"{block}.attn.to_k", f"{block}.attn.to_v", f"{block}.proj_mlp"]
        self.projection = AdaptedLinear(plan, names, width, [width, width, width, MLP_RATIO * width])

    def forward(self, tokens: Tensor, table: Tensor, rotary: Rotary, adapters: tuple[str, ...]) -> Tensor:
        """tokens (B, T + L, D), the prompt's first; table (1 or B, n) of this block's modulation."""
        shift, scale, gate = table.unflatten(-1, (3, 1, -1)).unbind(1)
        projected = self.projection(modulate(tokens, shift, scale), adapters)
        heads, hidden = projected.split((3 * self.width, MLP_RATIO * self.width), dim=-1)
        query, key, value = heads.unflatten(-1, (3, -1, self.head_size)).unbind(2)
        query, key = self.norms(query, key)
        attended = attend(rotate(query, rotary), rotate(key, rotary), value)
        out = self.out(torch.cat((attended, F.gelu(hidden, approximate="tanh")), dim=-1), adapters)
        return clip(torch.addcmul(tokens, gate, out))


class LastBlock(SingleBlock):
    """The last single block: of the prompt nothing is needed any more but its keys and values."""

    def __init__(self, plan: Plan, index: int, width: int, head_size: int, prompt_tokens: int) -> None:
        super().__init__(plan, index, width, head_size)
        self.prompt_tokens = prompt_tokens

    def _add_projections(self, plan: Plan, block: str, width: int) -> None:
        attention = f"{block}.attn."
        self.attended = AdaptedLinear(plan, [attention + "to_k", attention + "to_v"], width, [width, width])
        self.own = AdaptedLinear(plan, [attention + "to_q", f"{block}.proj_mlp"], width, [width, MLP_RATIO * width])

    def forward(self, tokens: Tensor, table: Tensor, rotary: Rotary, adapters: tuple[str, ...]) -> Tensor:
        """tokens (B, T + L, D) -> the image's alone, (B, L, D)."""
        shift, scale, gate = table.unflatten(-1, (3, 1, -1)).unbind(1)
        normed = modulate(tokens, shift, scale)
        key, value = self.attended(normed, adapters).unflatten(-1, (2, -1, self.head_size)).unbind(2)
        own = self.own(normed[:, self.prompt_tokens :], adapters)
        query, hidden = own.split((self.width, MLP_RATIO * self.width), dim=-1)
        query, key = self.norms(query.unflatten(-1, (-1, self.head_size)), key)
        of_image = (rotary[0][self.prompt_tokens :], rotary[1][self.prompt_tokens :])
        attended = attend(rotate(query, of_image), rotate(key, rotary), value)
        out = self.out(torch.cat((attended, F.gelu(hidden, approximate="tanh")), dim=-1), adapters)
        return clip(torch.addcmul(tokens[:, self.prompt_tokens :], gate, out))


class Head(Modulated):
    """The image's tokens back to patches of the latent."""

    def __init__(self, plan: Plan, width: int, channels: int) -> None:
        super().__init__(["norm_out.linear"], 2, (0,), width, plan.timesteps[1])
        self.projection = AdaptedLinear(replace(plan, precision=PLAIN), ["proj_out"], width, [channels])

    def forward(self, tokens: Tensor, table: Tensor, adapters: tuple[str, ...]) -> Tensor:
        """tokens (B, L, D) of the image -> (B, L, C)."""
        scale, shift = table.unflatten(-1, (2, 1, -1)).unbind(1)
        return self.projection(modulate(tokens, shift, scale), adapters)


class FoldedFlux(nn.Module):
    """The transformer; `config` as of diffusers' `FluxTransformer2DModel`."""

    prompt: Tensor

    def __init__(self, config: Mapping[str, Any], plan: Plan, prompt_tokens: int, highest_timestep: float) -> None:
        super().__init__()
        head_size, channels = config["attention_head_dim"], config["in_channels"]
        width = config["num_attention_heads"] * head_size
        self.rotary_axes = tuple(config["axes_dims_rope"])
        self.register_buffer("prompt", torch.empty(1, prompt_tokens, width))
        self.timesteps = Timesteps(highest_timestep, *plan.timesteps)
        self.embedder = AdaptedLinear(replace(plan, precision=PLAIN), ["x_embedder"], channels, [width])
        self.double_blocks = nn.ModuleList(
            DoubleBlock(plan, i, width, head_size, prompt_tokens) for i in range(config["num_layers"])
        )
        last = config["num_single_layers"] - 1
        self.single_blocks = nn.ModuleList(SingleBlock(plan, i, width, head_size) for i in range(last))
        self.single_blocks.append(LastBlock(plan, last, width, head_size, prompt_tokens))
        self.head = Head(plan, width, config.get("out_channels") or channels)

    @property
    def blocks(self) -> list[Modulated]:
        return [*self.double_blocks, *self.single_blocks]

    def table(self, timesteps: Tensor) -> Tensor:
        """The modulation of all blocks at timesteps (B,) on the model's own scale: (B, n) float32."""
        weights = self.timesteps(timesteps)
        return torch.cat([weights @ block.modulation for block in (*self.blocks, self.head)], dim=1)

    def rotary(self, rows: int, columns: int) -> Rotary:
        """Cosine and sine (T + L, 1, head_size / 2) for the prompt's tokens and a packed latent of rows x columns.

        Positions are zeros for the prompt, (0, row, column) for the latent, row by row.
        """
        device, prompt = self.prompt.device, self.prompt.shape[1]
        ids = torch.zeros(prompt + rows * columns, 3, device=device)
        ids[prompt:, 1] = torch.arange(rows, device=device).repeat_interleave(columns)
        ids[prompt:, 2] = torch.arange(columns, device=device).repeat(rows)
        return tuple(part[:, None, ::2] for part in FluxPosEmbed(ROTARY_BASE, self.rotary_axes)(ids))  # type: ignore[return-value]

    def enter(self, patches: Tensor, adapters: tuple[str, ...]) -> Tensor:
        """Patches (B, L, C) -> tokens (B, T + L, D), the prompt's first."""
        image = self.embedder(patches, adapters)
        return torch.cat((self.prompt.expand(len(image), -1, -1), image), dim=1)

    def forward(self, patches: Tensor, table: Tensor, rotary: Rotary, adapters: tuple[str, ...]) -> Tensor:
        """patches (B, L, C) of the packed latent -> (B, L, C); the batch is split evenly among the adapters."""
        sections = table.split([block.modulation.shape[1] for block in (*self.blocks, self.head)], dim=1)
        tokens = self.enter(patches, adapters)
        for block, section in zip(self.blocks, sections[:-1], strict=True):
            tokens = block(tokens, section, rotary, adapters)
        return self.head(tokens, sections[-1], adapters)


def clip(x: Tensor) -> Tensor:
    """FLUX's activations exceed float16's range now and then."""
    return x.clip(-65504, 65504) if x.dtype == torch.float16 else x
