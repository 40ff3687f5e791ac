"""The state of a stage in one safetensors file: parameters, optimizer moments, number of steps and, if the stage
averages its weights, their mean so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

PARAMETER, OPTIMIZER, MEAN = "parameter.", "optimizer.", "mean."
NOTHING: Mapping[str, Tensor] = {}


def save(
    path: Path,
    step: int,
    parameters: Mapping[str, Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
    mean: Mapping[str, Tensor] = NOTHING,
) -> None:
    """Write the file, replacing it as a whole, so that a valid one exists at any time."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in _named(parameters, mean).items()}
    for number, optimizer in enumerate(optimizers):
        for index, moments in optimizer.state_dict()["state"].items():
            prefix = f"{OPTIMIZER}{number}.{index}."
            state |= {prefix + key: value.detach().cpu().contiguous() for key, value in moments.items()}
    partial = path.with_suffix(".part")
    save_file(state, partial, metadata={"step": str(step)})
    partial.replace(path)


def resume(
    path: Path,
    parameters: Mapping[str, Tensor],
    optimizers: Sequence[torch.optim.Optimizer] = (),
    mean: Mapping[str, Tensor] = NOTHING,
) -> int:
    """Read `parameters`, `mean` and optimizer states from the file; returns its number of steps.

    Raises ValueError when the file belongs to other parameters.
    """
    tensors = _named(parameters, mean)
    with safe_open(path, framework="pt") as file:
        names = {key for key in file.keys() if not key.startswith(OPTIMIZER)}  # noqa: SIM118
        if names != tensors.keys() or any(
            file.get_slice(name).get_shape() != list(tensor.shape) for name, tensor in tensors.items()
        ):
            raise ValueError(f"{path}: belongs to another configuration; remove it or choose another --work")
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(file.get_tensor(name))
        for number, optimizer in enumerate(optimizers):
            prefix = f"{OPTIMIZER}{number}."
            moments: dict[int, dict[str, Any]] = {}
            for key in file.keys():  # noqa: SIM118
                if key.startswith(prefix):
                    index, name = key.removeprefix(prefix).split(".")
                    moments.setdefault(int(index), {})[name] = file.get_tensor(key)
            optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        return int(file.metadata()["step"])


def _named(parameters: Mapping[str, Tensor], mean: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By their names in the file."""
    named = {PARAMETER + name: tensor for name, tensor in parameters.items()}
    return named | {MEAN + name: tensor for name, tensor in mean.items()}
