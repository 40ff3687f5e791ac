"""What moves the weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lotus2_ros.training.config import StageConfig

# Of a transformer and of a U-Net. What only adds to every place the same for a time or a prompt is left to AdamW, and
# so is the VAE.
_IN_BLOCKS = re.compile(r"(?!vae\.)(?!.*(\.norm|time_emb)).*(transformer_blocks|(down|up)_blocks|mid_block)\.")


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
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, rate, weight_decay=decay)]
    if in_blocks:
        optimizers.append(Muon(in_blocks, rate, decay))
    return optimizers


class Muon(torch.optim.Muon):
    """torch's, which takes matrices, for the kernels of convolutions too: (out, in, h, w) as (out, in h w).

    Muon (Jordan et al., 2024) makes a step's matrix orthogonal; scaled to the size of AdamW's steps (arXiv 2502.16982),
    so that one learning rate serves both.
    """

    def __init__(self, parameters: Sequence[Tensor], learning_rate: float, weight_decay: float) -> None:
        self.parameters = parameters
        # The same memory seen as matrices: a step on them is one on the parameters.
        matrices = [parameter.detach().view(len(parameter), -1) for parameter in parameters]
        super().__init__(matrices, learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        for parameter, matrix in zip(self.parameters, self._matrices(), strict=True):
            matrix.grad = None if parameter.grad is None else parameter.grad.reshape(matrix.shape)
        return super().step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for parameter in self.parameters:
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    def _matrices(self) -> list[Tensor]:
        return [matrix for group in self.param_groups for matrix in group["params"]]
