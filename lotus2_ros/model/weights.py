"""Reading weight files and putting them into a model, strictly: all keys, no others, every shape right."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and, where there is one, the key."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, memory-mapped, or of a torch zip file, told apart by content, not by name."""
    if not path.is_file():
        raise CheckpointError(f"{path}: file not found")
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
        try:
            if not zipped:
                return load_file(path)
            file.seek(0)
            # The open file, because torch.load goes by the name and takes *.safetensors for what it says.
            return torch.load(file, map_location="cpu", weights_only=True)
        except (SafetensorError, RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise CheckpointError(f"{path}: truncated or not a weight file ({str(error).splitlines()[0]})") from None


def stored_name(parameter: str) -> str:
    """A parameter's name as it would be without PEFT's wrapping of adapted layers."""
    return parameter.replace(".base_layer.", ".")


def stored_state(model: nn.Module) -> dict[str, Tensor]:
    return {stored_name(name): tensor for name, tensor in model.state_dict().items()}


def check_weights(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError unless a file's tensors have exactly the expected keys and shapes."""
    missing, unexpected = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    for keys, problem in ((missing, "missing key"), (unexpected, "unexpected key")):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise CheckpointError(f"{path}: {problem} {keys[0]}{more}")
    for key, tensor in expected.items():
        if tensors[key].shape != tensor.shape:
            raise CheckpointError(
                f"{path}: {key} has shape {tuple(tensors[key].shape)}, expected {tuple(tensor.shape)}"
            )


def assign_weights(
    model: nn.Module, state: Mapping[str, Tensor], device: torch.device, dtype_of: Callable[[str], torch.dtype]
) -> None:
    """Put a complete `stored_state` into a model built on the meta device, one tensor at a time."""
    model.load_state_dict(
        {name: state[stored_name(name)].to(device, dtype_of(name)) for name in model.state_dict()},
        strict=True,
        assign=True,
    )
