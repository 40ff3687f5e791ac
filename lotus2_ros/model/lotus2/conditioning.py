"""The conditioning of the transformer: timestep, guidance, prompt and positions.

It is constant for one timestep and one latent size, so it is computed once. diffusers' own forward rounds timestep and
guidance to the dtype of the weights before it multiplies them by 1000; in bfloat16 the guidance 3500 becomes 3504. The
released Lotus-2 results were made that way. Here the rounding is a setting, independent of the compute dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lotus2_ros.model.cache import CachingModule
from lotus2_ros.model.layers.precision import dtype_named

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

GUIDANCE = 3.5
SINUSOIDS, LONGEST_PERIOD = 256, 10000  # of the embeddings of timestep and guidance


def rounded_timestep(timestep: Tensor, rounding: str) -> Tensor:
    """A timestep on the model's own scale, rounded as it enters its embedding; float32."""
    steps = timestep.to(torch.float32).to(dtype_named(rounding))
    return ((steps / 1000) * 1000).float()


def rounded_guidance(rounding: str, device: torch.device | str = "cpu") -> Tensor:
    """The guidance (1,), rounded as it enters its embedding; float32."""
    return (torch.tensor([GUIDANCE], dtype=dtype_named(rounding), device=device) * 1000).float()


def embed_timestep(timesteps: Tensor, guidance: Tensor | None, pooled: Tensor, read: Callable[[str], Tensor]) -> Tensor:
    """The input of all adaLN layers (B, D), of timesteps (B,), guidance (1,) and the pooled prompt (1, P), in float32.

    read: weights of diffusers' `time_text_embed`, by their names in it.
    """

    def perceptron(name: str, x: Tensor) -> Tensor:
        hidden = F.linear(x, read(f"{name}.linear_1.weight"), read(f"{name}.linear_1.bias"))
        return F.linear(F.silu(hidden), read(f"{name}.linear_2.weight"), read(f"{name}.linear_2.bias"))

    embedding = perceptron("timestep_embedder", sinusoids(timesteps))
    if guidance is not None:
        embedding = embedding + perceptron("guidance_embedder", sinusoids(guidance))
    return F.silu(embedding + perceptron("text_embedder", pooled))


def sinusoids(values: Tensor) -> Tensor:
    """(B,) -> cosines and sines (B, SINUSOIDS) float32."""
    half = SINUSOIDS // 2
    exponents = -math.log(LONGEST_PERIOD) * torch.arange(half, dtype=torch.float32, device=values.device) / half
    angles = values[:, None].float() * exponents.exp()
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def position_ids(prompt: Tensor, rows: int, columns: int) -> Tensor:
    """(T + L, 3): zeros for the prompt (1, T, D), (0, row, column) for a packed latent, row by row."""
    tokens, device = prompt.shape[1], prompt.device
    ids = torch.zeros(tokens + rows * columns, 3, device=device)
    ids[tokens:, 1] = torch.arange(rows, device=device).repeat_interleave(columns)
    ids[tokens:, 2] = torch.arange(columns, device=device).repeat(rows)
    return ids


@dataclass(frozen=True)
class Conditioning:
    """The inputs of a pass besides the image's tokens.

    modulation: (1 or B, D) embedding of timestep, guidance and pooled prompt, the input of every adaLN layer.
    prompt: (1, T, D) projected prompt tokens.
    rotary: cosine and sine, (T + L, head_dim) each, for the prompt's tokens and then the latent's.
    """

    modulation: Tensor
    prompt: Tensor
    rotary: tuple[Tensor, Tensor]


class Conditioner(CachingModule):
    """The constant prompt, and the conditioning computed from it.

    prompt_embeds (1, T, D) and pooled (1, P) as the text encoders give them. timestep_dtype: name of the dtype to which
    timestep and guidance are rounded.
    """

    prompt_embeds: Tensor
    pooled: Tensor

    def __init__(self, prompt_embeds: Tensor, pooled: Tensor, timestep_dtype: str) -> None:
        super().__init__()
        self.register_buffer("prompt_embeds", prompt_embeds)
        self.register_buffer("pooled", pooled)
        self.timestep_dtype = timestep_dtype

    def forward(
        self, transformer: FluxTransformer2DModel, timestep: float | Tensor, rows: int, columns: int
    ) -> Conditioning:
        """For a timestep on the model's own scale, a number or (B,), and a packed latent of rows x columns."""
        return Conditioning(
            modulation=self._modulation(transformer, timestep)
            if isinstance(timestep, Tensor)
            else self._once((timestep, self.timestep_dtype), lambda: self._modulation(transformer, timestep)),
            prompt=self._once("prompt", lambda: transformer.context_embedder(self.prompt_embeds)),
            rotary=self._once((rows, columns), lambda: self._rotary(transformer, rows, columns)),
        )

    def _modulation(self, transformer: FluxTransformer2DModel, timestep: float | Tensor) -> Tensor:
        device = self.pooled.device
        seen = rounded_timestep(torch.as_tensor(timestep, device=device).reshape(-1), self.timestep_dtype)
        if not transformer.config.guidance_embeds:
            return transformer.time_text_embed(seen, self.pooled)
        return transformer.time_text_embed(seen, rounded_guidance(self.timestep_dtype, device), self.pooled)

    def _rotary(self, transformer: FluxTransformer2DModel, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        return transformer.pos_embed(position_ids(self.prompt_embeds, rows, columns))

    def _once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Cached only while the weights cannot change: in evaluation, without gradients."""
        return compute() if self.training or torch.is_grad_enabled() else self.cached(key, compute)
