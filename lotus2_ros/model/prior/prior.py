"""The image prior of a small model: features of a pre-trained image encoder, for the network to begin with.

FLUX was trained on photographs and needs none. A network that is trained from scratch on rendered scenes has seen none,
so a backbone that was trained on photographs helps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lotus2_ros.model.prior.efficientnet import EfficientNetLite0

BACKBONES = {"efficientnet-lite0": EfficientNetLite0}


class ImagePrior(nn.Module):
    """A backbone's maps, brought to the grid of tokens, through a perceptron to features on the latent's grid.

    config: `backbone`, one of BACKBONES; `hidden` units; `channels` of the features; `patch`, side of a token in latent
    pixels. factor: side of a latent pixel in image pixels.
    """

    def __init__(self, config: Mapping[str, Any], factor: int) -> None:
        super().__init__()
        if config["backbone"] not in BACKBONES:
            raise ValueError(f"expected a prior with one of {', '.join(BACKBONES)}, got {config['backbone']!r}")
        self.config = dict(config)
        self.channels, self.patch = int(config["channels"]), int(config["patch"])
        self.token = factor * self.patch
        self.backbone = BACKBONES[config["backbone"]]()
        taken = sum(channels * self._finer(stride) ** 2 for stride, channels in self.backbone.channels.items())
        self.perceptron = nn.Sequential(
            nn.Conv2d(taken, config["hidden"], 1),
            nn.GELU(),
            nn.Conv2d(config["hidden"], self.channels * self.patch**2, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) in [-1, 1], sides multiples of the token's -> (B, channels, H / factor, W / factor)."""
        return F.pixel_shuffle(self.perceptron(self.look(image)), self.patch)

    def look(self, image: Tensor) -> Tensor:
        """The backbone's maps on the grid of tokens."""
        sides = [side // self.token for side in image.shape[2:]]
        maps = self.backbone(image.to(next(self.parameters()).dtype))
        return torch.cat([self._to_tokens(stride, values, sides) for stride, values in maps.items()], dim=1)

    def _finer(self, stride: int) -> int:
        """How many pixels of a map are side by side in a token, 1 if it is coarser."""
        return max(1, self.token // stride)

    def _to_tokens(self, stride: int, values: Tensor, sides: list[int]) -> Tensor:
        """A map on the grid of tokens: of a finer one all pixels of a token as its channels. Each map of mean 0 and
        deviation 1 in each pixel, as they differ in size."""
        if self._finer(stride) > 1:
            values = F.pixel_unshuffle(values, self._finer(stride))
        elif list(values.shape[2:]) != sides:
            values = F.interpolate(values, sides, mode="bilinear", align_corners=False)
        return F.layer_norm(values.movedim(1, -1), values.shape[1:2]).movedim(-1, 1)
