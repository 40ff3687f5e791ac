"""A card that is not there: tensors that say they are on another device, and a count of how often the host waits.

They compute on the CPU. What on a GPU waits for it is counted: reading a number, results whose size depends on values,
and copies to the host or from memory that is not pinned. Operations on tensors of both devices raise, as on a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("meta")  # torch knows it without a driver
# These wait; so does a full nanmedian, whose CUDA code reads how many values are NaN.
READS = {"_local_scalar_dense", "item", "nonzero", "equal", "is_nonzero", "masked_select", "unique2"}
NAN_MEDIAN = torch.ops.aten.nanmedian.default


class CardTensor(Tensor):
    """A tensor on the card."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, real: Tensor) -> CardTensor:
        return torch.Tensor._make_wrapper_subclass(
            cls, real.shape, real.stride(), real.storage_offset(), dtype=real.dtype, device=DEVICE
        )

    def __init__(self, real: Tensor) -> None:
        self.held = real

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{function} outside of PretendCard")


def to_card(module: nn.Module) -> None:
    """Move a module's weights and buffers to the card; in a `PretendCard` and in inference mode."""
    for part in module.modules():
        for kept in (part._parameters, part._buffers):
            for name, tensor in kept.items():
                if tensor is not None:
                    kept[name] = CardTensor(tensor.detach())


class NumbersOnCard(TorchFunctionMode):
    """Tensors made of Python's numbers, which an operation never sees: they are copied to the card, and waited for."""

    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        makes = function in (torch.tensor, torch.as_tensor) and not isinstance(args[0], Tensor)
        if not makes or torch.device(kwargs.get("device") or "cpu") != DEVICE:
            return function(*args, **kwargs)
        self._waits.append(function.__name__)
        return CardTensor(function(*args, **{**kwargs, "device": "cpu"}))


class PretendCard(TorchDispatchMode):
    """``waits``: the operations that waited; ``launches``: how many were computed on the card."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.launches = 0
        self._numbers = NumbersOnCard(self.waits)

    def __enter__(self) -> PretendCard:
        self._numbers.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._numbers.__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = tree_leaves((args, kwargs or {}))
        tensors = [each for each in leaves if isinstance(each, Tensor)]
        cards = [each for each in tensors if isinstance(each, CardTensor)]
        target = next((each for each in leaves if isinstance(each, torch.device)), None)
        name = function.overloadpacket.__name__
        held = tree_map_only(CardTensor, lambda card: card.held, (args, kwargs or {}))
        real_args, real_kwargs = tree_map_only(torch.device, lambda _: torch.device("cpu"), held)
        result = function(*real_args, **real_kwargs)
        if not cards and target != DEVICE:
            return result
        hosts = [each for each in tensors if not isinstance(each, CardTensor)]
        left = bool(cards) and target not in (None, DEVICE)
        entered = not cards and bool(hosts)
        if left or entered or name in READS or function is NAN_MEDIAN or self._is_masked(name, args):
            self.waits.append(name)
        elif hosts and name in ("copy_", "index", "index_put_"):
            self.waits.append(f"{name} between devices")
        elif any(each.dim() for each in hosts):
            raise RuntimeError(f"{name}: expected all tensors on one device, got some on the card and some on the host")
        if left:
            return result
        returned = function._schema.returns[0].alias_info if function._schema.returns else None
        self.launches += returned is None or returned.is_write  # views launch nothing
        known = {id(card.held): card for card in cards}  # of operations in place
        return tree_map_only(Tensor, lambda real: known[id(real)] if id(real) in known else CardTensor(real), result)

    @staticmethod
    def _is_masked(name: str, args: Any) -> bool:
        indices = [each for each in tree_leaves(args[1:]) if isinstance(each, Tensor)]
        return name in ("index", "index_put_") and any(each.dtype is torch.bool for each in indices)
