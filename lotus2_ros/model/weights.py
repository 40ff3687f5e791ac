"""Reading and writing weight files, strictly: exactly the expected keys, each with the expected shape."""

from __future__ import annotations

import json
import math
import pickle
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lotus2_ros.config.errors import first_line
from lotus2_ros.model.layers.precision import dtype_name
from lotus2_ros.model.memory import is_shortage, require_memory

EXPECTED = "expected safetensors in float32, bfloat16 or float16"


class CheckpointError(ValueError):
    """A checkpoint cannot be used. The message names the file and, if there is one, the key."""


class Weights(Protocol):
    """Tensors of one file by name."""

    @property
    def path(self) -> Path: ...

    @property
    def header(self) -> Mapping[str, Tensor]:
        """Their shapes and dtypes, on the meta device."""
        ...

    def read(self, key: str) -> Tensor:
        """One tensor, on the CPU."""
        ...


class WeightFile:
    """A safetensors file or a torch zip file (told apart by content) whose tensors are read one by one.

    `header` has their shapes and dtypes, on the meta device. Raises CheckpointError unless the file is complete.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = {key: tensor.to("meta") for key, tensor in read_weights(path).items()}

    def read(self, key: str) -> Tensor:
        """One tensor, in a mapping of its own, so that its memory is released together with it."""
        tensor = read_weights(self.path, key)[key]
        if tensor.numel() and not all(math.isfinite(extreme) for extreme in tensor.aminmax()):
            raise CheckpointError(f"{self.path}: {key} has NaN or infinite values")
        return tensor


def read_weights(path: Path, *keys: str) -> dict[str, Tensor]:
    """The tensors of a weight file, or some of them. A safetensors file is memory-mapped."""
    if not path.is_file():
        raise CheckpointError(f"{path}: file not found{found_instead(path.parent)}")
    with path.open("rb") as file:
        magic = file.read(4)
        if magic == b"GGUF":
            raise CheckpointError(f"{path}: a GGUF file, weights quantized for other programs; {EXPECTED}")
        try:
            if not magic.startswith(b"PK"):
                with safe_open(path, framework="pt") as weights:
                    return {key: weights.get_tensor(key) for key in keys or weights.keys()}
            file.seek(0)
            # Pass the open file: given a path, torch.load decides the format by the file name.
            tensors = torch.load(file, map_location="cpu", weights_only=True)
            return {key: tensors[key] for key in keys} if keys else tensors
        except (SafetensorError, RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            if is_shortage(error):
                raise
            raise CheckpointError(f"{path}: truncated or not a weight file ({first_line(error)})") from None


def found_instead(folder: Path) -> str:
    """The end of an error about a missing weight file: one in a format that is not read, if the folder has it."""
    names = sorted(file.name for file in folder.glob("*") if file.is_file())
    variants = [name for name in names if re.search(r"\.(fp16|bf16|fp8|non_ema)\b.*safetensors", name)]
    pickled = [name for name in names if name.endswith((".bin", ".ckpt", ".pt", ".pth"))]
    gguf = [name for name in names if name.endswith(".gguf")]
    if variants:
        return f"; {variants[0]} is a variant of it: fetch the file without a variant, or rename this one"
    if pickled:
        return f"; {pickled[0]} has pickled weights: fetch the safetensors file"
    return f"; {gguf[0]} is a GGUF file, quantized for other programs; {EXPECTED}" if gguf else ""


def stored_name(parameter: str) -> str:
    """A parameter's name without PEFT's wrapping of adapted layers."""
    return parameter.replace(".base_layer.", ".")


def stored_state(model: nn.Module) -> dict[str, Tensor]:
    return {stored_name(name): tensor for name, tensor in model.state_dict().items()}


def check_weights(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError unless a file's tensors have exactly the expected keys and shapes.

    Floating-point weights may be of any usual precision, other ones have the expected dtype.
    """
    check_keys(path, tensors, expected)
    for key, tensor in expected.items():
        if tensors[key].shape != tensor.shape:
            raise CheckpointError(
                f"{path}: expected {key} of shape {tuple(tensor.shape)}, got {tuple(tensors[key].shape)}"
            )
        wanted, got = tensor.dtype, tensors[key].dtype
        if got != wanted and not (_is_usual(got) and _is_usual(wanted)):
            raise CheckpointError(f"{path}: expected {key} in {dtype_name(wanted)}, got {dtype_name(got)}")


def _is_usual(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point and dtype.itemsize > 1


def check_keys(path: Path, keys: Iterable[str], expected: Iterable[str]) -> None:
    """Raise CheckpointError unless a file has exactly the expected keys."""
    missing, unexpected = sorted(set(expected) - set(keys)), sorted(set(keys) - set(expected))
    for names, problem in ((missing, "missing key"), (unexpected, "unexpected key")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointError(f"{path}: {problem} {names[0]}{more}")


def read_parts(
    folder: Path, expected: Mapping[str, Tensor], file_of: Callable[[str], str], skipped: Callable[[str], bool]
) -> dict[str, Tensor]:
    """A model's state from the files of a bundle, memory-mapped.

    expected: names and shapes. file_of: the file of a weight, by name. skipped: weights in the files that the model
    does not need. Raises CheckpointError unless the files have exactly the expected weights.
    """
    files: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in expected.items():
        files[file_of(name)][name] = tensor
    state: dict[str, Tensor] = {}
    for file, shapes in files.items():
        tensors = {name: tensor for name, tensor in read_weights(folder / file).items() if not skipped(name)}
        check_weights(folder / file, tensors, shapes)
        state |= tensors
    return state


def write_parts(
    folder: Path,
    state: Mapping[str, Tensor],
    file_of: Callable[[str], str],
    dtype_of: Callable[[str], torch.dtype | None],
) -> None:
    """The reverse: write a state to its files, each weight in the dtype that `dtype_of` gives, None for its own."""
    files: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in state.items():
        files[file_of(name)][name] = tensor.detach().to("cpu", dtype_of(name)).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    for file, tensors in files.items():
        # Replaced as a whole, because the old file may be memory-mapped by this very model.
        partial = folder / f"{file}.part"
        save_file(tensors, partial)
        partial.replace(folder / file)


def bytes_of(state: Mapping[str, Tensor], dtype_of: Callable[[str], torch.dtype | None]) -> int:
    """The size of a state whose weights are in the dtypes that `dtype_of` gives, None for their own."""
    return sum(tensor.numel() * (dtype_of(name) or tensor.dtype).itemsize for name, tensor in state.items())


def assign_weights(
    model: nn.Module, state: Mapping[str, Tensor], device: torch.device, dtype_of: Callable[[str], torch.dtype | None]
) -> None:
    """Put a complete `stored_state` into a model that was built on the meta device.

    Raises MemoryShortageError if the device has too little memory for what has to be copied.
    """
    copied = 0
    for name in model.state_dict():
        tensor = state[stored_name(name)]
        dtype = dtype_of(name) or tensor.dtype
        copied += tensor.numel() * dtype.itemsize if (tensor.device, tensor.dtype) != (device, dtype) else 0
    require_memory(device, copied, "the model")
    model.load_state_dict(
        {name: state[stored_name(name)].to(device, dtype_of(name)) for name in model.state_dict()},
        strict=True,
        assign=True,
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"{path}: file not found")
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def weight_file(component: Path, stem: str = "diffusion_pytorch_model") -> Path:
    """The weight file of a component, or the index of its shards."""
    index = component / f"{stem}.safetensors.index.json"
    return index if index.is_file() else component / f"{stem}.safetensors"


def open_weights(file: Path) -> Mapping[str, WeightFile]:
    """The file of each tensor, by key. Raises CheckpointError unless all files are complete and match the index."""
    if file.suffix != ".json":
        whole = WeightFile(file)
        return dict.fromkeys(whole.header, whole)
    listed = read_json(file).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise CheckpointError(f"{file}: expected a weight_map from keys to files")
    shards = {name: WeightFile(file.parent / name) for name in sorted(set(listed.values()))}
    for name, shard in shards.items():
        check_keys(shard.path, shard.header, [key for key, home in listed.items() if home == name])
    return {key: shards[name] for key, name in listed.items()}
