"""How `lotus2 prepare` converts a model to a bundle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor


class Store(Protocol):
    """Where a conversion keeps its results; what an interrupted run stored is still there for the next."""

    def read(self, name: str) -> dict[str, Tensor] | None:
        """An intermediate result in memory, or None."""
        ...

    def write(self, name: str, tensors: Mapping[str, Tensor]) -> None: ...

    def has_part(self, file: str) -> bool:
        """Whether a file of the bundle is there."""
        ...

    def write_part(self, file: str, tensors: Mapping[str, Tensor]) -> None: ...


class Conversion(ABC):
    """A released or trained model on its way to a bundle.

    `files`: all it is made from, by the names to record. `plan`: everything else that the result depends on, as JSON.
    `parts`: the steps in order. `size`: bytes of the bundle's weights.
    """

    files: Mapping[str, Path]

    @property
    @abstractmethod
    def plan(self) -> dict[str, Any]: ...

    @property
    @abstractmethod
    def parts(self) -> list[str]: ...

    @property
    @abstractmethod
    def size(self) -> int: ...

    @abstractmethod
    def convert(self, store: Store) -> Iterator[str]:
        """Write the parts one after the other, skipping those that are there; yields the name of each."""

    @abstractmethod
    def manifest(self, sources: Mapping[str, str]) -> dict[str, Any]:
        """The bundle's manifest, once all parts are converted. sources: {file: sha256}."""
