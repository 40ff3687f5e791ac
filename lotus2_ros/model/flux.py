"""One pass of the FLUX transformer, with everything that does not depend on the image split off as `Conditioning`.

The blocks, embedders and weights are diffusers' `FluxTransformer2DModel`; only its `forward` is replaced. That one
rounds timestep and guidance to the dtype of the weights before it multiplies them by 1000: in bfloat16 the guidance
3500 becomes 3504. The released Lotus-2 results were made that way, so here the rounding is a choice of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor

GUIDANCE = 3.5


@dataclass(frozen=True)
class Conditioning:
    """What a pass needs besides its tokens; constant for one timestep and one latent size.

    modulation: (1 or B, D) embedding of timestep, guidance and pooled prompt, which sets every adaptive norm.
    prompt: (1, T, D) projected prompt tokens.
    rotary: cosine and sine, (T + L, head_dim) each, for the prompt's tokens and then the latent's.
    """

    modulation: Tensor
    prompt: Tensor
    rotary: tuple[Tensor, Tensor]


def transform(transformer: FluxTransformer2DModel, tokens: Tensor, conditioning: Conditioning) -> Tensor:
    """tokens (B, L, C) -> (B, L, C)."""
    modulation, rotary = conditioning.modulation, conditioning.rotary
    image = transformer.x_embedder(tokens)
    prompt = conditioning.prompt.expand(len(tokens), -1, -1)
    for block in transformer.transformer_blocks:
        prompt, image = block(image, prompt, modulation, rotary)
    for block in transformer.single_transformer_blocks:
        prompt, image = block(image, prompt, modulation, rotary)
    return transformer.proj_out(transformer.norm_out(image, modulation))


def embed_modulation(
    transformer: FluxTransformer2DModel, timestep: Tensor, pooled: Tensor, rounding: torch.dtype
) -> Tensor:
    """timestep (B,) float32 on the model's own scale, pooled (1, P) -> (B, D).

    `rounding` is the dtype in which the reference would have held timestep / 1000 and guidance, whatever the compute
    dtype: the rounded values reach the sinusoids in float32.
    """
    seen = ((timestep.to(rounding) / 1000) * 1000).float()
    if not transformer.config.guidance_embeds:
        return transformer.time_text_embed(seen, pooled)
    guidance = (torch.tensor([GUIDANCE], device=seen.device, dtype=rounding) * 1000).float()
    return transformer.time_text_embed(seen, guidance, pooled)


def rotary_embedding(
    transformer: FluxTransformer2DModel, prompt_tokens: int, rows: int, columns: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the position ids: zeros for the prompt, (0, row, column) for the packed latent, row by row."""
    ids = torch.zeros(prompt_tokens + rows * columns, 3, device=device)
    ids[prompt_tokens:, 1] = torch.arange(rows, device=device).repeat_interleave(columns)
    ids[prompt_tokens:, 2] = torch.arange(columns, device=device).repeat(rows)
    return transformer.pos_embed(ids)


def pack(latent: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h/2 * w/2, 4C): each 2x2 patch becomes one token, channel-major."""
    batch, channels, height, width = latent.shape
    patches = latent.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, height // 2 * (width // 2), channels * 4)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack`, for a latent of height x width."""
    batch, _, channels = tokens.shape
    patches = tokens.reshape(batch, height // 2, width // 2, channels // 4, 2, 2)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels // 4, height, width)
