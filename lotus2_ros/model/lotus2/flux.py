"""The forward pass of FLUX over diffusers' blocks and weights (`FluxTransformer2DModel`), with cached conditioning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

    from lotus2_ros.model.lotus2.conditioning import Conditioning


def transform(transformer: FluxTransformer2DModel, tokens: Tensor, conditioning: Conditioning) -> Tensor:
    """tokens (B, L, C) -> (B, L, C)."""
    modulation, rotary = conditioning.modulation, conditioning.rotary
    image = transformer.x_embedder(tokens)
    prompt = conditioning.prompt.expand(len(tokens), -1, -1)
    for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
        if transformer.gradient_checkpointing and torch.is_grad_enabled():
            prompt, image = checkpoint(block, image, prompt, modulation, rotary, use_reentrant=False)
        else:
            prompt, image = block(image, prompt, modulation, rotary)
    return transformer.proj_out(transformer.norm_out(image, modulation))


def pack(latent: Tensor, patch: int = 2) -> Tensor:
    """(B, C, h, w) -> (B, h/p * w/p, C p p): each p x p patch becomes one token, channel-major."""
    batch, channels, height, width = latent.shape
    patches = latent.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpack(tokens: Tensor, height: int, width: int, patch: int = 2) -> Tensor:
    """The inverse of `pack`, for a latent of height x width."""
    patches = tokens.unflatten(1, (height // patch, width // patch)).unflatten(3, (-1, patch, patch))
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), -1, height, width)
