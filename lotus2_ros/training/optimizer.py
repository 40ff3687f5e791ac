"""Optimizers: AdamW and Muon."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lotus2_ros.model.layers.precision import multiplies_bfloat16
from lotus2_ros.training.config import StageConfig

# Weights of transformer and U-Net blocks, which Muon may train. Norms, time embeddings and the VAE are left to AdamW.
_IN_BLOCKS = re.compile(r"(?!vae\.)(?!.*(\.norm|time_emb)).*(transformer_blocks|(down|up)_blocks|mid_block)\.")
_MOMENTUM = 0.95
_NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)  # steepest at zero
_ITERATIONS = 5


def optimizers_for(parameters: Mapping[str, Tensor], stage: StageConfig) -> list[torch.optim.Optimizer]:
    """AdamW, or Muon for the matrices and kernels of the network's blocks and AdamW for the rest.

    A small network from nothing takes Muon well: a transformer needs about two thirds of the images, a U-Net half of
    them (docs/decisions/0011).
    """
    in_blocks: list[Tensor] = []
    rest: list[Tensor] = []
    for name, parameter in parameters.items():
        chosen = stage.optimizer == "muon" and parameter.ndim >= 2 and _IN_BLOCKS.match(name)
        (in_blocks if chosen else rest).append(parameter)
    rate, decay = stage.learning_rate, stage.weight_decay
    optimizers: list[torch.optim.Optimizer] = []
    if rest:
        optimizers.append(torch.optim.AdamW(rest, rate, weight_decay=decay))
    if in_blocks:
        optimizers.append(Muon(in_blocks, rate, decay))
    return optimizers


class Muon(torch.optim.Optimizer):
    """Orthogonalized momentum for matrices and for convolution kernels, (out, in, h, w) as (out, in h w).

    As torch.optim.Muon (Jordan et al., 2024), scaled to the size of AdamW's steps (arXiv 2502.16982) so that one
    learning rate serves both. torch's takes matrices only and multiplies in bfloat16 always, which takes most of a
    step's time on a CPU without instructions for it.
    """

    def __init__(self, parameters: Sequence[Tensor], learning_rate: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": learning_rate, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure is ever given
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group["lr"], group["weight_decay"])

    def _move(self, parameter: Tensor, gradient: Tensor, rate: float, decay: float) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - _MOMENTUM)
        matrix = gradient.lerp(momentum, _MOMENTUM).flatten(1)  # Nesterov's
        size = 0.2 * math.sqrt(max(matrix.shape))  # the root mean square of AdamW's steps is about 0.2
        parameter.mul_(1 - rate * decay)
        parameter.add_(orthogonalize(matrix).view_as(parameter), alpha=-rate * size)


def orthogonalize(matrix: Tensor) -> Tensor:
    """U V^T of (M, N) = U S V^T, roughly: its singular values come to between 0.5 and 1.5.

    By five quintic Newton-Schulz steps, in bfloat16 where the device multiplies it.
    """
    dtype = torch.bfloat16 if multiplies_bfloat16(matrix.device) else torch.float32
    wide = matrix.to(dtype) if matrix.shape[0] <= matrix.shape[1] else matrix.to(dtype).T
    wide = wide / wide.norm().clamp(min=1e-7)
    a, b, c = _NEWTON_SCHULZ
    for _ in range(_ITERATIONS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T
