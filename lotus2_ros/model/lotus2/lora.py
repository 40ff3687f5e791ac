"""One base for all stages and tasks: a linear layer, and what each of them changes on it.

The base is the core predictor of one task, its LoRA merged. Every other core predictor and every sharpener is a
change of it: the difference of two LoRAs is a low-rank matrix again, of the sum of their ranks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lotus2_ros.model.layers.linear import make_linear
from lotus2_ros.model.lotus2.base import CORE, SHARPENER, adapter_name

# A low-rank change that is bigger than this share of the weight it changes is kept as a whole weight of its own: the
# layer then costs one product instead of three. Never so in the released model (.26 at the most).
LOW_RANK_SHARE = 0.5


@dataclass(frozen=True)
class LoraSpec:
    """A LoRA: its rank, its scale alpha / rank, and the layers it adapts, as PEFT writes them."""

    rank: int
    scale: float
    targets: str | tuple[str, ...]

    def rank_of(self, layer: str) -> int:
        """Its rank at a layer of the transformer; 0 where it has no part."""
        if isinstance(self.targets, str):
            return self.rank if re.fullmatch(self.targets, layer) else 0
        return self.rank if any(layer == name or layer.endswith(f".{name}") for name in self.targets) else 0


@dataclass(frozen=True)
class FusedPlan:
    """How the stages of all tasks share one base, and in which precision its layers are held."""

    tasks: tuple[str, ...]
    base: str  # the adapter whose LoRA, if it has one, is merged
    adapters: Mapping[str, LoraSpec]
    precision: str
    timesteps: tuple[int, int]  # polynomials of the timestep, vectors of the modulation's basis (`modulation.py`)

    @property
    def changes(self) -> tuple[str, ...]:
        """The stages that are not the base, by their adapters' names."""
        names = [adapter_name(stage, task) for stage in (CORE, SHARPENER) for task in self.tasks]
        return tuple(name for name in names if name != self.base and (name in self.adapters or name.startswith(CORE)))

    def ranks(self, change: str, layers: Iterable[str]) -> tuple[int, ...]:
        """The ranks of a change at some layers."""
        pair = [self.adapters[name] for name in (change, self.base) if name in self.adapters]
        return tuple(sum(adapter.rank_of(layer) for adapter in pair) for layer in layers)


def as_targets(targets: str | Iterable[str]) -> str | tuple[str, ...]:
    return targets if isinstance(targets, str) else tuple(sorted(targets))


class LoraDelta(nn.Module):
    """B A x for some of the outputs that a layer has, each with its own rank (0: none)."""

    def __init__(self, precision: str, in_features: int, outputs: Sequence[int], ranks: Sequence[int]) -> None:
        super().__init__()
        self.down = make_linear(precision, in_features, sum(ranks), bias=False)
        self.up = nn.ModuleDict()
        self._parts: list[tuple[str, int, int, int]] = []  # name, rank, first output, number of them
        start = 0
        for i, (size, rank) in enumerate(zip(outputs, ranks, strict=True)):
            if rank:
                self.up[str(i)] = make_linear(precision, rank, size, bias=False)
                self._parts.append((str(i), rank, start, size))
            start += size

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """y (..., out) + B A x (..., in); y is changed in place."""
        hidden = self.down(x).split([rank for _, rank, _, _ in self._parts], dim=-1)
        for (name, _, start, size), part in zip(self._parts, hidden, strict=True):
            y.narrow(-1, start, size).add_(self.up[name](part))
        return y


class LoraLinear(nn.Module):
    """Linear layers that share their input, as one; and what each adapter changes on them.

    `sources`: the transformer's layers that it is made of. A batch is split evenly among `adapters`, names of changes;
    others stand for the base.
    """

    def __init__(self, plan: FusedPlan, sources: Sequence[str], in_features: int, outputs: Sequence[int]) -> None:
        super().__init__()
        self.sources, self.outputs, self.precision = tuple(sources), tuple(outputs), plan.precision
        self.base = make_linear(plan.precision, in_features, sum(outputs), bias=True)
        self.changes = nn.ModuleDict()
        for name in plan.changes:
            ranks = plan.ranks(name, sources)
            size = sum(rank * (in_features + out) for rank, out in zip(ranks, outputs, strict=True))
            if size > LOW_RANK_SHARE * in_features * sum(outputs):
                self.changes[name] = make_linear(plan.precision, in_features, sum(outputs), bias=True)
            elif size:
                self.changes[name] = LoraDelta(plan.precision, in_features, outputs, ranks)

    def forward(self, x: Tensor, adapters: tuple[str, ...]) -> Tensor:
        """x (B, L, in) -> (B, L, out)."""
        changes = [self._change(name) for name in adapters]
        if len(set(adapters)) == 1:
            return self._changed(x, changes[0])
        if not all(change is None or isinstance(change, LoraDelta) for change in changes):
            parts = zip(x.chunk(len(changes)), changes, strict=True)
            return torch.cat([self._changed(part, change) for part, change in parts])
        # All share the base's weights, so they are read once.
        y = self.base(x)
        for part, rows, change in zip(x.chunk(len(changes)), y.chunk(len(changes)), changes, strict=True):
            if change is not None:
                change.add_to(rows, part)
        return y

    def _change(self, name: str) -> Any:
        return self.changes[name] if name in self.changes else None  # noqa: SIM401, a ModuleDict has no get

    def _changed(self, x: Tensor, change: Any) -> Tensor:
        if change is None:
            return self.base(x)
        return change.add_to(self.base(x), x) if isinstance(change, LoraDelta) else change(x)
