"""The blocks of the fused FLUX transformer.

Differences to diffusers' `FluxTransformer2DModel`: no embedders of timestep, guidance and prompt and no adaLN layers
(`layers/adaln.py` replaces them); linear layers with the same input are fused; the last block computes only keys and
values for the prompt. The pairs of query and key channels that the rotary embedding rotates are half a head apart
instead of adjacent; `fuse.py` permutes the weights, which does not change the attention.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lotus2_ros.model.layers.adaln import AdaLN
from lotus2_ros.model.layers.lora import LoraLinear
from lotus2_ros.model.lotus2.base import FusedPlan

EPSILON = 1e-6
MLP_RATIO = 4
GELU_SLOPE, GELU_CUBE = (2 / math.pi) ** 0.5, 0.044715
# The first and the last layer are small and stay in float32: their errors go straight into the result.
PLAIN = "float32"

Rotary = tuple[Tensor, Tensor]


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm with the given shift and scale, (1 or B, 1, D) each; `scale` is 1 + the usual scale."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=EPSILON), scale)


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Rotary embedding of x (B, L, heads, D), from cosine and signed sine, (L, 1, D) each."""
    cosine, sine = rotary
    turned = x.float()
    return torch.addcmul(turned * cosine, turned.roll(x.shape[-1] // 2, dims=-1), sine).to(x.dtype)


def gelu(x: Tensor) -> Tensor:
    """GELU, tanh approximation. In float32 as x * sigmoid(2 u), which is equal and twice as fast as torch's."""
    if x.dtype != torch.float32:
        return F.gelu(x, approximate="tanh")
    twice = (x * x).mul_(2 * GELU_SLOPE * GELU_CUBE).add_(2 * GELU_SLOPE).mul_(x)
    return twice.sigmoid_().mul_(x)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention: (B, L, heads, D) each, queries may be fewer -> (B, L of the queries, heads * D)."""
    attended = F.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
    return attended.transpose(1, 2).flatten(2)


class HeadNorms(nn.Module):
    """RMS norms of queries and keys over each head. `sources`: the layers that the weights come from."""

    def __init__(self, head_size: int, sources: tuple[str, str]) -> None:
        super().__init__()
        self.sources = sources
        self.query = nn.Parameter(torch.empty(head_size))
        self.key = nn.Parameter(torch.empty(head_size))

    def forward(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(F.rms_norm(x, x.shape[-1:], w, EPSILON) for x, w in ((query, self.query), (key, self.key)))  # type: ignore[return-value]


class TokenStream(nn.Module):
    """The half of a double block that processes the image's or the prompt's tokens."""

    def __init__(self, plan: FusedPlan, block: str, image: bool, width: int, head_size: int) -> None:
        super().__init__()
        attention = f"{block}.attn."
        projections = ("to_q", "to_k", "to_v") if image else ("add_q_proj", "add_k_proj", "add_v_proj")
        mlp = f"{block}.ff.net." if image else f"{block}.ff_context.net."
        self.head_size = head_size
        norm = attention + ("norm_" if image else "norm_added_")
        self.norms = HeadNorms(head_size, (norm + "q", norm + "k"))
        self.projection = LoraLinear(plan, [attention + name for name in projections], width, [width] * 3)
        self.out = LoraLinear(plan, [attention + ("to_out.0" if image else "to_add_out")], width, [width])
        self.widen = LoraLinear(plan, [mlp + "0.proj"], width, [MLP_RATIO * width])
        self.narrow = LoraLinear(plan, [mlp + "2"], MLP_RATIO * width, [width])

    def project(self, x: Tensor, modulation: list[Tensor], adapters: tuple[str, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, L, heads, D) each."""
        projected = self.projection(modulate(x, modulation[0], modulation[1]), adapters)
        query, key, value = projected.unflatten(-1, (3, -1, self.head_size)).unbind(2)
        return *self.norms(query, key), value

    def finish(self, x: Tensor, attended: Tensor, modulation: list[Tensor], adapters: tuple[str, ...]) -> Tensor:
        x = torch.addcmul(x, modulation[2], self.out(attended, adapters))
        hidden = gelu(self.widen(modulate(x, modulation[3], modulation[4]), adapters))
        return torch.addcmul(x, modulation[5], self.narrow(hidden, adapters))


class DoubleBlock(AdaLN):
    """Attention over all tokens, with separate weights for prompt and image."""

    def __init__(self, plan: FusedPlan, index: int, width: int, head_size: int, prompt_tokens: int) -> None:
        block = f"transformer_blocks.{index}"
        # Order of the modulation: shift, scale, gate of the attention, then of the MLP.
        norms = [f"{block}.norm1.linear", f"{block}.norm1_context.linear"]
        super().__init__(norms, 6, (1, 4), width, plan.timesteps[1])
        self.prompt_tokens = prompt_tokens
        self.image = TokenStream(plan, block, True, width, head_size)
        self.prompt = TokenStream(plan, block, False, width, head_size)

    def forward(self, tokens: Tensor, modulation: Tensor, rotary: Rotary, adapters: tuple[str, ...]) -> Tensor:
        """tokens (B, T + L, D), the prompt's first; modulation (1 or B, n) of this block."""
        rows = list(modulation.unflatten(-1, (12, 1, -1)).unbind(1))
        prompt, image = tokens[:, : self.prompt_tokens], tokens[:, self.prompt_tokens :]
        of_prompt = self.prompt.project(prompt, rows[6:], adapters)
        of_image = self.image.project(image, rows[:6], adapters)
        query, key, value = (torch.cat(pair, dim=1) for pair in zip(of_prompt, of_image, strict=True))
        attended = attend(rotate(query, rotary), rotate(key, rotary), value)
        prompt = self.prompt.finish(prompt, attended[:, : self.prompt_tokens], rows[6:], adapters)
        image = self.image.finish(image, attended[:, self.prompt_tokens :], rows[:6], adapters)
        return clip(torch.cat((prompt, image), dim=1))


class SingleBlock(AdaLN):
    """Attention and MLP in parallel, with the same weights for all tokens."""

    def __init__(self, plan: FusedPlan, index: int, width: int, head_size: int) -> None:
        block = f"single_transformer_blocks.{index}"
        super().__init__([f"{block}.norm.linear"], 3, (1,), width, plan.timesteps[1])
        self.width, self.head_size = width, head_size
        self.norms = HeadNorms(head_size, (f"{block}.attn.norm_q", f"{block}.attn.norm_k"))
        self._add_projections(plan, block, width)
        self.out = LoraLinear(plan, [f"{block}.proj_out"], (1 + MLP_RATIO) * width, [width])

    def _add_projections(self, plan: FusedPlan, block: str, width: int) -> None:
        names = [f"{block}.attn.to_q", f"{block}.attn.to_k", f"{block}.attn.to_v", f"{block}.proj_mlp"]
        self.projection = LoraLinear(plan, names, width, [width, width, width, MLP_RATIO * width])

    def forward(self, tokens: Tensor, modulation: Tensor, rotary: Rotary, adapters: tuple[str, ...]) -> Tensor:
        """tokens (B, T + L, D), the prompt's first; modulation (1 or B, n) of this block."""
        shift, scale, gate = modulation.unflatten(-1, (3, 1, -1)).unbind(1)
        projected = self.projection(modulate(tokens, shift, scale), adapters)
        heads, hidden = projected.split((3 * self.width, MLP_RATIO * self.width), dim=-1)
        query, key, value = heads.unflatten(-1, (3, -1, self.head_size)).unbind(2)
        query, key = self.norms(query, key)
        attended = attend(rotate(query, rotary), rotate(key, rotary), value)
        out = self.out(torch.cat((attended, gelu(hidden)), dim=-1), adapters)
        return clip(torch.addcmul(tokens, gate, out))


class LastBlock(SingleBlock):
    """The last single block, which needs only keys and values of the prompt."""

    def __init__(self, plan: FusedPlan, index: int, width: int, head_size: int, prompt_tokens: int) -> None:
        super().__init__(plan, index, width, head_size)
        self.prompt_tokens = prompt_tokens

    def _add_projections(self, plan: FusedPlan, block: str, width: int) -> None:
        attention = f"{block}.attn."
        self.attended = LoraLinear(plan, [attention + "to_k", attention + "to_v"], width, [width, width])
        self.own = LoraLinear(plan, [attention + "to_q", f"{block}.proj_mlp"], width, [width, MLP_RATIO * width])

    def forward(self, tokens: Tensor, modulation: Tensor, rotary: Rotary, adapters: tuple[str, ...]) -> Tensor:
        """tokens (B, T + L, D) -> the image's tokens (B, L, D)."""
        shift, scale, gate = modulation.unflatten(-1, (3, 1, -1)).unbind(1)
        normed = modulate(tokens, shift, scale)
        key, value = self.attended(normed, adapters).unflatten(-1, (2, -1, self.head_size)).unbind(2)
        own = self.own(normed[:, self.prompt_tokens :], adapters)
        query, hidden = own.split((self.width, MLP_RATIO * self.width), dim=-1)
        query, key = self.norms(query.unflatten(-1, (-1, self.head_size)), key)
        of_image = (rotary[0][self.prompt_tokens :], rotary[1][self.prompt_tokens :])
        attended = attend(rotate(query, of_image), rotate(key, rotary), value)
        out = self.out(torch.cat((attended, gelu(hidden)), dim=-1), adapters)
        return clip(torch.addcmul(tokens[:, self.prompt_tokens :], gate, out))


class Head(AdaLN):
    """From the image's tokens to patches of the latent."""

    def __init__(self, plan: FusedPlan, width: int, channels: int) -> None:
        super().__init__(["norm_out.linear"], 2, (0,), width, plan.timesteps[1])
        self.projection = LoraLinear(replace(plan, precision=PLAIN), ["proj_out"], width, [channels])

    def forward(self, tokens: Tensor, modulation: Tensor, adapters: tuple[str, ...]) -> Tensor:
        """tokens (B, L, D) of the image -> (B, L, C)."""
        scale, shift = modulation.unflatten(-1, (2, 1, -1)).unbind(1)
        return self.projection(modulate(tokens, shift, scale), adapters)


def clip(x: Tensor) -> Tensor:
    """Clip to float16's range, which FLUX's activations sometimes exceed."""
    return x.clip(-65504, 65504) if x.dtype == torch.float16 else x
