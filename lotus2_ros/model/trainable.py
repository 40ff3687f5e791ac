"""The interfaces of a model that can be trained, and of the network that a run begins with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from lotus2_ros.model.manifest import Task
from lotus2_ros.model.prior.config import PriorNetwork
from lotus2_ros.model.torch_model import TorchModel

TrainedPart = Literal["vae", "core", "core_and_decoder", "sharpener", "uncertainty"]
Count = Annotated[int, Field(ge=1)]
STORED = torch.float16  # of a trained bundle's weights


class TrainableModel(TorchModel):
    """A model with weights in the form in which they are trained."""

    @abstractmethod
    def trainable_parameters(self, part: TrainedPart) -> dict[str, Tensor]:
        """The parameters that a stage trains, by name."""

    @abstractmethod
    def enable_gradient_checkpointing(self) -> None:
        """Compute activations again in the backward pass, which saves memory and costs time."""

    def first_blocks(self, count: int | None) -> AbstractContextManager[None]:
        """A context in which the network has only its first `count` single blocks; None: all."""
        return nullcontext()


class StageObjective(Protocol):
    @property
    def kind(self) -> str: ...

    def part(self) -> TrainedPart: ...


class TrainingStage(Protocol):
    """The part of a training stage that a network reads."""

    @property
    def objective(self) -> StageObjective: ...

    @property
    def single_blocks(self) -> int | None: ...

    @property
    def mixed_precision(self) -> str: ...


class NetworkConfig(BaseModel, ABC):
    """The network that a training run begins with; `source` in the YAML file names the class.

    `objectives`: the kinds of objectives that it can be trained with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    objectives: ClassVar[tuple[str, ...]]
    source: str

    @abstractmethod
    def check(self, tasks: Sequence[Task], stages: Sequence[TrainingStage]) -> None:
        """Raise ValueError unless the network can be trained on these tasks in these stages."""

    @abstractmethod
    def build(self, tasks: tuple[Task, ...], stages: Sequence[TrainingStage], device: torch.device) -> TrainableModel:
        """The model before its first step."""

    @abstractmethod
    def save(self, model: Any, folder: Path, metadata: Mapping[str, Any]) -> None:
        """Write the trained model as files that `load_model` or `lotus2 prepare` reads."""


class SmallNetwork(NetworkConfig):
    """A small network with random weights, and its VAE."""

    vae_widths: tuple[int, ...]
    vae_groups: Count  # at least 4 channels each: a group of one channel loses its mean
    latent_channels: Count
    process_resolution: Count
    prior: PriorNetwork | None = None

    def vae_config(self) -> dict[str, Any]:
        depth = len(self.vae_widths)
        return {
            "block_out_channels": self.vae_widths,
            "down_block_types": ("DownEncoderBlock2D",) * depth,
            "up_block_types": ("UpDecoderBlock2D",) * depth,
            "latent_channels": self.latent_channels,
            "norm_num_groups": self.vae_groups,
            "layers_per_block": 1,
            "mid_block_add_attention": False,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
            "force_upcast": False,
            "scaling_factor": 1.0,
            "shift_factor": 0.0,
        }


def no_single_blocks(stages: Sequence[TrainingStage]) -> None:
    """Raise ValueError if a stage trains only some of the blocks, which takes a network from scratch."""
    if any(stage.single_blocks for stage in stages):
        raise ValueError("expected no single_blocks in stages unless network.source is scratch; remove it")
