"""The interface of a model family; `families.py` lists the families."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

if TYPE_CHECKING:
    from lotus2_ros.model.manifest import FloatName, Header
    from lotus2_ros.model.torch_model import InferenceModel
    from lotus2_ros.model.trainable import NetworkConfig


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded. tasks: None for all there are. timestep_dtype: None for the model's own. samples and
    seed: of a generative model."""

    device: torch.device
    dtype: torch.dtype
    tasks: Sequence[str] | None = None
    timestep_dtype: FloatName | None = None
    samples: int = 1
    seed: int = 0


class Family(ABC):
    """A model family.

    Its module imports what it needs inside the methods, so that loading a model of one family imports no other.
    `formats`: the family names in bundle.json, each with its formats. `layout`: its released layout, for errors.
    `without_bfloat16`: the compute dtype on a GPU that has no bfloat16.
    """

    formats: ClassVar[Mapping[str, tuple[int, ...]]]
    layout: ClassVar[str]
    without_bfloat16: ClassVar[torch.dtype]

    @abstractmethod
    def load_bundle(self, folder: Path, header: Header, options: LoadOptions) -> InferenceModel:
        """A bundle's model, ready to run. Raises CheckpointError that names file and key."""

    @abstractmethod
    def is_released(self, folder: Path) -> bool:
        """Whether a folder is in the layout in which models of this family are released."""

    @abstractmethod
    def load_released(self, folder: Path, options: LoadOptions) -> InferenceModel:
        """A released model, ready to run. Raises CheckpointError that names file and key."""

    @abstractmethod
    def networks(self) -> tuple[type[NetworkConfig], ...]:
        """The networks that a training run can begin with."""
