"""The VAE of Stable Diffusion and FLUX, with the keys and weight names of diffusers' `AutoencoderKL`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn
from typing_extensions import Self

from lotus2_ros.model.components import Channels, ComponentConfig, Layers, Listed

EPSILON = 1e-6
LOGVAR = (-30.0, 20.0)  # limits of the posterior's log variance


class VaeConfig(ComponentConfig):
    """`sample_size`, `latents_mean` and `latents_std` have no effect, as in diffusers."""

    in_channels: Channels = 3
    out_channels: Channels = 3
    down_block_types: Listed[Literal["DownEncoderBlock2D"]] = ("DownEncoderBlock2D",)
    up_block_types: Listed[Literal["UpDecoderBlock2D"]] = ("UpDecoderBlock2D",)
    block_out_channels: Listed[Channels] = (64,)
    layers_per_block: Layers = 1
    act_fn: Literal["silu"] = "silu"
    latent_channels: Channels = 4
    norm_num_groups: Channels = 32
    sample_size: Channels = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    latents_mean: Listed[float] | None = None
    latents_std: Listed[float] | None = None
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    @property
    def factor(self) -> int:
        """Side of a latent pixel in image pixels."""
        return 2 ** (len(self.block_out_channels) - 1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        levels = len(self.block_out_channels)
        if not levels or {len(self.down_block_types), len(self.up_block_types)} != {levels}:
            raise ValueError(f"expected as many block types as block_out_channels, {levels}, and at least one")
        return self


@dataclass(frozen=True)
class Posterior:
    """A normal distribution of latents, (B, C, h, w) each."""

    mean: Tensor
    logvar: Tensor

    @property
    def std(self) -> Tensor:
        return torch.exp(0.5 * self.logvar)

    def sample(self, generator: torch.Generator) -> Tensor:
        noise = torch.randn(self.mean.shape, generator=generator, device=generator.device, dtype=self.mean.dtype)
        return self.mean + self.std * noise.to(self.mean.device)


class Vae(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] <-> latents (B, C, H/f, W/f), not scaled or shifted."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1) if config.use_quant_conv else None
        self.post_quant_conv = nn.Conv2d(channels, channels, 1) if config.use_post_quant_conv else None

    @property
    def dtype(self) -> torch.dtype:
        return self.encoder.conv_in.weight.dtype

    def scale_latents(self, *, shift: float | None, scale: float) -> None:
        """Set what the config says of latents: a network takes them minus the shift and times the scale."""
        self.config = self.config.model_copy(update={"shift_factor": shift, "scaling_factor": scale})

    def encode(self, image: Tensor) -> Posterior:
        moments = self.encoder(image)
        mean, logvar = (moments if self.quant_conv is None else self.quant_conv(moments)).chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(*LOGVAR))

    def decode(self, latent: Tensor) -> Tensor:
        return self.decoder(latent if self.post_quant_conv is None else self.post_quant_conv(latent))


class Encoder(nn.Module):
    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths, groups, layers = config.block_out_channels, config.norm_num_groups, config.layers_per_block
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            ResidualLevel(taken, given, groups, layers, downsample=level < len(widths) - 1)
            for level, (taken, given) in enumerate(pairwise((widths[0], *widths)))
        )
        self.mid_block = Middle(widths[-1], groups, config.mid_block_add_attention)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPSILON)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """-> mean and log variance, (B, 2C, h, w)."""
        x = self.conv_in(image)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(self.conv_act(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.up_blocks = nn.ModuleList(
            ResidualLevel(taken, given, groups, config.layers_per_block + 1, upsample=level < len(widths) - 1)
            for level, (taken, given) in enumerate(pairwise((widths[0], *widths)))
        )
        self.mid_block = Middle(widths[0], groups, config.mid_block_add_attention)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPSILON)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(latent))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(self.conv_act(self.conv_norm_out(x)))


class ResidualLevel(nn.Module):
    """Residual blocks at one size, then a step to half or twice that size, if there is one."""

    def __init__(
        self, taken: int, given: int, groups: int, layers: int, *, downsample: bool = False, upsample: bool = False
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Residual(given if layer else taken, given, groups) for layer in range(layers))
        self.downsamplers = nn.ModuleList([Downsample(given)] if downsample else [])
        self.upsamplers = nn.ModuleList([Upsample(given)] if upsample else [])

    def forward(self, x: Tensor) -> Tensor:
        for module in (*self.resnets, *self.downsamplers, *self.upsamplers):
            x = module(x)
        return x


class Middle(nn.Module):
    def __init__(self, channels: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels, groups)] if attention else [])
        self.resnets = nn.ModuleList(Residual(channels, channels, groups) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnets[0](x)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x)


class Residual(nn.Module):
    def __init__(self, taken: int, given: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, taken, EPSILON)
        self.conv1 = nn.Conv2d(taken, given, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, given, EPSILON)
        self.conv2 = nn.Conv2d(given, given, 3, padding=1)
        self.nonlinearity = nn.SiLU()
        self.conv_shortcut = nn.Conv2d(taken, given, 1) if taken != given else None

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(self.nonlinearity(self.norm1(x)))
        hidden = self.conv2(self.nonlinearity(self.norm2(hidden)))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + hidden


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Attention(nn.Module):
    """Attention of one head over all pixels, with a residual."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, EPSILON)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.group_norm(x.flatten(2)).transpose(1, 2)
        heads = (project(pixels)[:, None] for project in (self.to_q, self.to_k, self.to_v))
        attended = self.to_out[0](F.scaled_dot_product_attention(*heads)[:, 0])
        return attended.transpose(1, 2).reshape(x.shape) + x
