"""Where a stage has come to: one safetensors file with its parameters, the optimizers' moments, the number of steps
and, of a stage that averages them, the mean of its parameters so far."""

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
    """Replaces the file as a whole, so that there is a good one at any time."""
    tensors = {PARAMETER: parameters, MEAN: mean}
    state = {
        prefix + name: tensor.detach().cpu().contiguous()
        for prefix, named in tensors.items()
        for name, tensor in named.items()
    }
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
    """Fill `parameters`, `mean` and the optimizers from the file; how many steps it has seen.

    Raises ValueError when the file belongs to other parameters.
    """
    with safe_open(path, framework="pt") as file:
        names = {key.removeprefix(PARAMETER) for key in file.keys() if key.startswith(PARAMETER)}  # noqa: SIM118
        if names != parameters.keys() or any(
            file.get_slice(PARAMETER + name).get_shape() != list(tensor.shape) for name, tensor in parameters.items()
        ):
            raise ValueError(f"{path}: is of another configuration; remove it or choose another folder")
        with torch.no_grad():
            for prefix, named in ((PARAMETER, parameters), (MEAN, mean)):
                for name, tensor in named.items():
                    tensor.copy_(file.get_tensor(prefix + name))
        for number, optimizer in enumerate(optimizers):
            prefix = f"{OPTIMIZER}{number}."
            moments: dict[int, dict[str, Any]] = {}
            for key in file.keys():  # noqa: SIM118
                if key.startswith(prefix):
                    index, name = key.removeprefix(prefix).split(".")
                    moments.setdefault(int(index), {})[name] = file.get_tensor(key)
            optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        return int(file.metadata()["step"])
