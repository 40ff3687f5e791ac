"""One pass of the FLUX transformer, over diffusers' blocks, embedders and weights (`FluxTransformer2DModel`).

Everything that does not depend on the image comes in from outside, as a `Conditioning`.
"""

from __future__ import annotations

from diffusers import FluxTransformer2DModel
from torch import Tensor

from lotus2_ros.model.conditioning import Conditioning


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
