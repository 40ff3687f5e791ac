"""The noise of a generative model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def draw_noise(shape: Sequence[int], samples: int, seed: int) -> Tensor:
    """(samples, C, h, w) for latents of shape (1, C, h, w). Sample N does not depend on the number of samples."""
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([torch.randn(tuple(shape), generator=generator) for _ in range(samples)])
