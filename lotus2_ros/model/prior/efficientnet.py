"""EfficientNet-Lite0 without its classifier, as a backbone: maps of an image at several strides.

Mobile inverted bottlenecks (arXiv 1801.04381, 1905.11946); "Lite" has no squeeze-and-excitation and ReLU6 for swish.
Batch norms are not here: they are frozen, so they are part of the convolutions from the start, see `fuse_norms`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

STEM = 32
# Kernel, stride, expansion, channels and number of blocks of each stage.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
NORM_EPSILON = 1e-3
# The published names of a block's convolutions and of the norms behind them; the first block does not expand.
PUBLISHED = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))


class Bottleneck(nn.Module):
    """Widen, filter each channel, narrow; beside its input where that has the same shape."""

    def __init__(self, taken: int, given: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = taken * expansion
        widen = [nn.Conv2d(taken, width, 1), nn.ReLU6(inplace=True)] if expansion > 1 else []
        filtered = nn.Conv2d(width, width, kernel, stride, kernel // 2, groups=width)
        self.layers = nn.Sequential(*widen, filtered, nn.ReLU6(inplace=True), nn.Conv2d(width, given, 1))
        self.residual = stride == 1 and taken == given

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class EfficientNetLite0(nn.Module):
    """Images (B, 3, H, W) in [-1, 1], as it was trained, to maps by stride: those of `channels`, at H / stride."""

    channels: ClassVar[Mapping[int, int]] = {8: 40, 16: 112, 32: 320}

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, STEM, 3, 2, 1), nn.ReLU6(inplace=True))
        self.stages = nn.ModuleList()
        taken = STEM
        for kernel, stride, expansion, given, count in STAGES:
            blocks = [Bottleneck(taken, given, kernel, stride, expansion)]
            blocks += [Bottleneck(given, given, kernel, 1, expansion) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*blocks))
            taken = given

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        maps, x, stride = {}, self.stem(image), 2
        for stage, (_, step, *_) in zip(self.stages, STAGES, strict=True):
            x, stride = stage(x), stride * step
            maps[stride] = x  # a later stage of the same stride takes its place
        return {stride: maps[stride] for stride in self.channels}


def fuse_norms(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of an `EfficientNetLite0` from the published one, whose convolutions have no bias and batch norms
    behind them: w x / s becomes (w / s) x. The classifier is left out."""

    def fuse(convolution: str, norm: str) -> tuple[Tensor, Tensor]:
        weight, shift, mean, variance = (
            published[f"{norm}.{kind}"] for kind in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight / torch.sqrt(variance + NORM_EPSILON)
        return published[f"{convolution}.weight"] * scale[:, None, None, None], shift - mean * scale

    return {
        f"{ours}.{kind}": tensor
        for ours, convolution, norm in _convolutions()
        for kind, tensor in zip(("weight", "bias"), fuse(convolution, norm), strict=True)
    }


def _convolutions() -> Iterator[tuple[str, str, str]]:
    """Our name of each convolution, its published one and that of the norm behind it."""
    yield "stem.0", "_conv_stem", "_bn0"
    number = 0
    for stage, (_, _, expansion, _, count) in enumerate(STAGES):
        for block in range(count):
            published = PUBLISHED if expansion > 1 else PUBLISHED[1:]
            for place, (convolution, norm) in enumerate(published):
                ours = f"stages.{stage}.{block}.layers.{2 * place}"  # an activation is between two convolutions
                yield ours, f"_blocks.{number}.{convolution}", f"_blocks.{number}.{norm}"
            number += 1
