"""What moves the weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lotus2_ros.training.config import StageConfig


def optimizers_for(parameters: Mapping[str, Tensor], stage: StageConfig) -> list[torch.optim.Optimizer]:
    """AdamW, or Muon for the matrices of the transformer's blocks and AdamW for the rest.

    Muon (Jordan et al., 2024) makes a step's matrix orthogonal; scaled to the size of AdamW's steps
    (arXiv 2502.16982), so that one learning rate serves both. A small network from nothing takes it well: it needs
    about two thirds of the images.
    """
    matrices: list[Tensor] = []
    rest: list[Tensor] = []
    for name, parameter in parameters.items():
        in_block = parameter.ndim == 2 and "transformer_blocks" in name and ".norm" not in name
        (matrices if in_block and stage.optimizer == "muon" else rest).append(parameter)
    rate, decay = stage.learning_rate, stage.weight_decay
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, rate, weight_decay=decay)]
    if matrices:
        optimizers.append(torch.optim.Muon(matrices, rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    return optimizers
