"""The keys of a Lotus-2 bundle's `bundle.json`, in both formats."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from lotus2_ros.config.precisions import PrecisionName
from lotus2_ros.model.components import LARGEST, Channels, ComponentConfig, Layers, Listed
from lotus2_ros.model.layers.lora import LoraSpec, as_targets
from lotus2_ros.model.lotus2.scheduler import Scheduler
from lotus2_ros.model.manifest import FloatName, Manifest, Section, Task
from lotus2_ros.model.prior.config import PriorSection
from lotus2_ros.model.vae import VaeConfig

RANK = Field(ge=1, le=65536)


class TrainableLora(Section):
    """rank, alpha and target modules as PEFT takes them."""

    rank: int = RANK
    alpha: float = Field(gt=0)
    targets: str | tuple[str, ...]

    @property
    def spec(self) -> LoraSpec:
        return LoraSpec(self.rank, self.alpha / self.rank, as_targets(self.targets))


class FusedLora(Section):
    """scale: alpha / rank."""

    rank: int = RANK
    scale: float
    targets: str | tuple[str, ...]

    @property
    def spec(self) -> LoraSpec:
        return LoraSpec(self.rank, self.scale, as_targets(self.targets))


class TransformerConfig(ComponentConfig):
    """The keys of diffusers' `FluxTransformer2DModel`."""

    patch_size: Literal[1] = 1
    in_channels: Channels = 64
    out_channels: Channels | None = None
    num_layers: Layers = 19
    num_single_layers: Layers = 38
    attention_head_dim: Channels = 128
    num_attention_heads: Channels = 24
    joint_attention_dim: Channels = 4096
    pooled_projection_dim: Channels = 768
    guidance_embeds: bool = False
    axes_dims_rope: Listed[Channels] = (16, 56, 56)


class UncertaintySection(Section):
    """See `UncertaintyHead`."""

    width: int = Field(ge=1, le=LARGEST)


class Lotus2Components(Section):
    vae: VaeConfig
    transformer: TransformerConfig
    scheduler: Scheduler
    prior: PriorSection | None = None
    uncertainty: UncertaintySection | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        head, axes = self.transformer.attention_head_dim, self.transformer.axes_dims_rope
        if len(axes) != 3 or sum(axes) != head or any(axis % 2 for axis in axes):
            raise ValueError(f"expected three even transformer.axes_dims_rope that add up to {head}, got {axes}")
        return self


class Lotus2Manifest(Manifest):
    """The keys that both formats have."""

    stages: dict[Task, tuple[Literal["core_predictor", "detail_sharpener"], ...]]
    prompt_tokens: int = Field(ge=1, le=65536)
    components: Lotus2Components

    @model_validator(mode="after")
    def _check(self) -> Self:
        if missing := [task for task in self.tasks if task not in self.stages]:
            raise ValueError(f"expected stages of every task, got none of {missing[0]}")
        return self

    @property
    def configs(self) -> dict[str, dict[str, Any]]:
        return {name: section.model_dump() for name, section in self.components if section is not None}


class TrainableManifest(Lotus2Manifest):
    """Format 1: a model that can be trained on."""

    dtype: FloatName
    adapters: dict[str, TrainableLora]


class FusedManifest(Lotus2Manifest):
    """Format 2: a fused model. `base`: the adapter whose LoRA is merged; `timesteps`: shape of the polynomials."""

    precision: PrecisionName
    base: str
    adapters: dict[str, FusedLora]
    timesteps: tuple[int, int]
