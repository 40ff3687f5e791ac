"""The uncertainty head: from what the core predictor says of depth, and the features it saw, to how far it may be off.

It is trained on a core predictor that stays as it is (`training/objectives.py`) and changes nothing of its answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 2  # latent pixels that are side by side in a token
SQRT2 = math.sqrt(2)  # the standard deviation of a Laplace distribution of scale 1
USUAL = math.log(0.08)  # of an untrained head


class UncertaintyHead(nn.Module):
    """Convolutions on the grid of tokens; a value for each latent pixel. config: `width`, of the hidden layers.

    channels: of the latent, with those of a prior's features.
    """

    def __init__(self, config: Mapping[str, Any], channels: int) -> None:
        super().__init__()
        self.config = dict(config)
        width = config["width"]
        last = nn.Conv2d(width, PATCH**2, 1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.layers = nn.Sequential(
            nn.Conv2d(channels * PATCH**2, width, 1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2),
            nn.GELU(),
            last,
        )

    def forward(self, latent: Tensor) -> Tensor:
        """Latent of the core's depth (B, C + F, h, w), h and w even -> logarithm of the scale of a Laplace
        distribution of the error of the disparity (B, 1, h, w)."""
        return USUAL + F.pixel_shuffle(self.layers(F.pixel_unshuffle(latent, PATCH)), PATCH)

    def deviation(self, latent: Tensor) -> Tensor:
        """The same -> one standard deviation of the disparity (B, 1, h, w), float32."""
        return SQRT2 * self(latent).float().exp()
