"""The memory that frames need beside the weights, and what a GPU has left for them."""

from __future__ import annotations

import gc
import itertools
import logging
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lotus2_ros.model.memory import GIGABYTE, free_memory
from lotus2_ros.model.torch_model import InferenceModel

log = logging.getLogger(__name__)

HEADROOM = 0.1  # share of a GPU's memory that should stay free
# The workspaces of cuDNN and cuBLAS, and what compiled code and CUDA graphs hold. An estimate.
WORKSPACE_BYTES = 1 << 30
# The runs before a recording allocate outside of the memory of CUDA graphs, so activations are there twice.
COPIES = 2


def frame_bytes(model: InferenceModel, height: int, width: int) -> int:
    """An estimate of the GPU memory for frames of height x width, multiples of `model.multiple`, with all tasks."""
    return COPIES * activation_bytes(model, height, width) + WORKSPACE_BYTES


def room_for_frames(device: torch.device) -> int:
    """Bytes of a GPU that frames may take beside the weights that are there now."""
    _, total = torch.cuda.mem_get_info(device)
    return (free_memory(device) or 0) - round(HEADROOM * total)


def check_headroom(device: torch.device) -> None:
    """Warn if less than HEADROOM of a GPU is free; to be called after a model's first frames."""
    if device.type != "cuda":
        return
    free, total = torch.cuda.mem_get_info(device)
    if free < HEADROOM * total:
        log.warning(
            "%.1f of %.1f GB of GPU memory are free, less than %.0f %%: choose a smaller precision, fewer tasks "
            "(model.tasks) or a smaller model.process_resolution",
            free / GIGABYTE, total / GIGABYTE, 100 * HEADROOM,
        )  # fmt: skip


def free_compiled() -> None:
    """Free the memory of models that nothing refers to any more, compiled ones too."""
    # Compiled models are in reference cycles and in dynamo's cache.
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def activation_bytes(model: InferenceModel, height: int, width: int, tasks: Sequence[str] | None = None) -> int:
    """The most memory that activations take at a time, for an image of height x width, multiples of `model.multiple`.

    tasks: processed together, by default all. Counted operation by operation; compiled code needs less. Kernels'
    workspaces are not counted.
    """
    tasks = model.tasks if tasks is None else tuple(tasks)
    twin = model.on_meta(tasks, model.linear_precision)
    dtype_of = twin.dtype_of(model.dtype)
    state = {name: tensor.to(dtype_of(name)) for name, tensor in twin.state_dict().items()}
    twin.load_state_dict(state, assign=True)
    twin.batched = model.batched
    image = torch.empty(1, 3, height, width, device="meta")
    factor = model.vae_factor
    latent = torch.empty(1, model.latent_channels, height // factor, width // factor, device="meta", dtype=model.dtype)
    answers: list[Tensor] = []
    stages: tuple[Callable[[], object], ...] = (
        lambda: twin.encode(image),
        lambda: answers.extend(twin.predict(latent, tasks).values()),
        lambda: twin.decode(torch.cat(answers)),
    )
    with torch.no_grad():
        return max(_peak(twin, stage) for stage in stages)


def _peak(model: InferenceModel, run: Callable[[], object]) -> int:
    with _FusedAttention(), _LiveBytes(model) as memory:
        run()
    return memory.peak


class _FusedAttention(TorchFunctionMode):
    """Attention as the kernels of a GPU compute it, without the matrix of scores."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.scaled_dot_product_attention:
            return torch.empty_like(args[0] if args else kwargs["query"])
        return function(*args, **(kwargs or {}))


class _LiveBytes(TorchDispatchMode):
    """Bytes of all tensors that are alive and not a model's weights; `peak` is the largest number so far."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        weights = itertools.chain(model.parameters(), model.buffers())
        # Storages have no hash of their own; views have other Python objects for the same storage.
        self._known = {tensor.untyped_storage()._cdata for tensor in weights}
        self._live = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self._known:
                self._take(tensor.untyped_storage())
        self.peak = max(self.peak, self._live)
        return result

    def _take(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self._live += size
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._live -= size
