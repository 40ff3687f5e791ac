"""Linear layers with several LoRAs on one base weight.

The base has one LoRA merged. Every other one is held as its difference to that: the difference of two LoRAs is a
low-rank matrix again, of the sum of their ranks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lotus2_ros.model.layers.linear import FloatLinear, make_linear

# A difference with more weights than this share of the base's is held as a full weight of its own. The layer then needs
# one matrix product instead of three. The largest share in the released model is 0.26.
LOW_RANK_SHARE = 0.5


@dataclass(frozen=True)
class LoraSpec:
    """A LoRA: its rank, its scale (alpha / rank), and the layers it adapts, as PEFT names them."""

    rank: int
    scale: float
    targets: str | tuple[str, ...]

    def rank_of(self, layer: str) -> int:
        """Its rank at a layer; 0 where the layer is not adapted."""
        if isinstance(self.targets, str):
            return self.rank if re.fullmatch(self.targets, layer) else 0
        return self.rank if any(layer == name or layer.endswith(f".{name}") for name in self.targets) else 0


@dataclass(frozen=True)
class LoraPlan:
    """Which LoRAs share the base weights, and the precision of the layers.

    adapters: the LoRAs by name. base: the name of the one that is merged; without a LoRA of that name the base weights
    are plain.
    """

    base: str
    adapters: Mapping[str, LoraSpec]
    precision: str

    @property
    def deltas(self) -> tuple[str, ...]:
        """The names that are held as a delta of the base."""
        return tuple(name for name in self.adapters if name != self.base)

    def ranks(self, delta: str, layers: Iterable[str]) -> tuple[int, ...]:
        """The ranks of a delta at some layers."""
        pair = [self.adapters[name] for name in (delta, self.base) if name in self.adapters]
        return tuple(sum(lora.rank_of(layer) for lora in pair) for layer in layers)


def as_targets(targets: str | Iterable[str]) -> str | tuple[str, ...]:
    return targets if isinstance(targets, str) else tuple(sorted(targets))


class LoraDelta(nn.Module):
    """B A x for some of the outputs of a layer, each with its own rank (0: none)."""

    def __init__(self, precision: str, in_features: int, outputs: Sequence[int], ranks: Sequence[int]) -> None:
        super().__init__()
        self.down = make_linear(precision, in_features, sum(ranks), bias=False)
        self.up = nn.ModuleDict()
        self._parts: list[tuple[str, int, int, int]] = []  # name, rank, first output, number of outputs
        start = 0
        for i, (size, rank) in enumerate(zip(outputs, ranks, strict=True)):
            if rank:
                self.up[str(i)] = make_linear(precision, rank, size, bias=False)
                self._parts.append((str(i), rank, start, size))
            start += size

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """y (..., out) + B A x (..., in); changes y in place."""
        hidden = self.down(x).split([rank for _, rank, _, _ in self._parts], dim=-1)
        if torch.onnx.is_in_onnx_export():  # writing into a slice would be a ScatterND of the whole tensor
            return y + self._joined(hidden, y)
        for (name, _, start, size), part in zip(self._parts, hidden, strict=True):
            y.narrow(-1, start, size).add_(self.up[name](part))
        return y

    def add_product_to(self, weight: Tensor) -> Tensor:
        """weight (out, in) + B A; a new tensor."""
        merged = weight.clone()
        downs = cast(FloatLinear, self.down).weight.split([rank for _, rank, _, _ in self._parts])
        for (name, _, start, size), down in zip(self._parts, downs, strict=True):
            merged[start : start + size] += cast(FloatLinear, self.up[name]).weight @ down
        return merged

    def _joined(self, hidden: Sequence[Tensor], y: Tensor) -> Tensor:
        """The outputs of all LoRAs side by side, zeros where none adapts a layer."""
        pieces, end = [], 0
        for (name, _, start, size), part in zip(self._parts, hidden, strict=True):
            pieces += [torch.zeros_like(y[..., end:start]), self.up[name](part)]
            end = start + size
        pieces.append(torch.zeros_like(y[..., end:]))
        return torch.cat([piece for piece in pieces if piece.shape[-1]], dim=-1)


class LoraLinear(nn.Module):
    """Linear layers that share their input, fused into one, with a delta for each LoRA that is not merged.

    `sources`: names of the layers that were fused. In `forward` the batch is split evenly among `adapters`; a name
    without a delta stands for the base.
    """

    def __init__(self, plan: LoraPlan, sources: Sequence[str], in_features: int, outputs: Sequence[int]) -> None:
        super().__init__()
        self.sources, self.outputs, self.precision = tuple(sources), tuple(outputs), plan.precision
        self.base = make_linear(plan.precision, in_features, sum(outputs), bias=True)
        self.changes = nn.ModuleDict()  # the deltas; bundles have this name in their tensors' names
        for name in plan.deltas:
            ranks = plan.ranks(name, sources)
            size = sum(rank * (in_features + out) for rank, out in zip(ranks, outputs, strict=True))
            if size > LOW_RANK_SHARE * in_features * sum(outputs):
                self.changes[name] = make_linear(plan.precision, in_features, sum(outputs), bias=True)
            elif size:
                self.changes[name] = LoraDelta(plan.precision, in_features, outputs, ranks)

    def forward(self, x: Tensor, adapters: tuple[str, ...]) -> Tensor:
        """x (B, L, in) -> (B, L, out)."""
        deltas = [self._delta(name) for name in adapters]
        if len(set(adapters)) == 1:
            return self._apply_delta(x, deltas[0])
        if not all(delta is None or isinstance(delta, LoraDelta) for delta in deltas):
            parts = zip(x.chunk(len(deltas)), deltas, strict=True)
            return torch.cat([self._apply_delta(part, delta) for part, delta in parts])
        # All share the base weight, so it is read once.
        y = self.base(x)
        for part, rows, delta in zip(x.chunk(len(deltas)), y.chunk(len(deltas)), deltas, strict=True):
            if delta is not None:
                delta.add_to(rows, part)
        return y

    def _delta(self, name: str) -> Any:
        return self.changes[name] if name in self.changes else None  # noqa: SIM401, a ModuleDict has no get

    def _apply_delta(self, x: Tensor, delta: Any) -> Tensor:
        if delta is None:
            return self.base(x)
        if torch.jit.is_tracing() and isinstance(delta, LoraDelta) and isinstance(self.base, FloatLinear):
            # A compiled stage has weights of its own, so that the delta is merged for nothing.
            return F.linear(x, delta.add_product_to(self.base.weight), self.base.bias)
        return delta.add_to(self.base(x), x) if isinstance(delta, LoraDelta) else delta(x)
