"""The local continuity module: two convolutions with a residual that remove the 2x2 block pattern of packed latents."""

from __future__ import annotations

from torch import Tensor, nn


class LocalContinuity(nn.Module):
    """`x + conv3x3(C -> 2C) -> GELU -> conv3x3(2C -> C)` on unpacked latents (Lotus-2, arXiv 2512.01030)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widen = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        narrow = nn.Conv2d(2 * channels, channels, 3, padding=1)
        # An untrained module is the identity.
        for parameter in narrow.parameters():
            nn.init.zeros_(parameter)
        self.layers = nn.Sequential(widen, nn.GELU(), narrow)

    def forward(self, latent: Tensor) -> Tensor:
        """latent (B, C, h, w) -> the same shape."""
        return latent + self.layers(latent)
