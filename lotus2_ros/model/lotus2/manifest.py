"""The keys of a Lotus-2 bundle's `bundle.json`, in both formats."""

from __future__ import annotations

from typing import Any, Literal

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from pydantic import Field, model_validator
from typing_extensions import Self

from lotus2_ros.config.precisions import PrecisionName
from lotus2_ros.model.components import config_of
from lotus2_ros.model.manifest import FloatName, Manifest, Section, Task

RANK = Field(ge=1, le=65536)


class TrainableLora(Section):
    """rank, alpha and target modules as PEFT takes them."""

    rank: int = RANK
    alpha: float = Field(gt=0)
    targets: str | tuple[str, ...]


class FusedLora(Section):
    """scale: alpha / rank."""

    rank: int = RANK
    scale: float
    targets: str | tuple[str, ...]


class PriorSection(Section):
    """See `ImagePrior`."""

    backbone: str
    hidden: int = RANK
    channels: int = RANK
    patch: Literal[1, 2]


class Lotus2Components(Section):
    vae: config_of(AutoencoderKL)  # type: ignore[valid-type]
    transformer: config_of(FluxTransformer2DModel)  # type: ignore[valid-type]
    scheduler: config_of(FlowMatchEulerDiscreteScheduler)  # type: ignore[valid-type]
    prior: PriorSection | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        head, axes = (self.transformer.get(key) for key in ("attention_head_dim", "axes_dims_rope"))
        if head is not None and axes is not None and (sum(axes) != head or any(axis % 2 for axis in axes)):
            raise ValueError(f"expected transformer.axes_dims_rope to be even and to add up to {head}, got {axes}")
        if not self.scheduler.get("num_train_timesteps", 1):
            raise ValueError("expected scheduler.num_train_timesteps of at least 1, got 0")
        return self


class Lotus2Manifest(Manifest):
    """What both formats have."""

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
        plain = {name: getattr(self.components, name) for name in ("vae", "transformer", "scheduler")}
        prior = self.components.prior
        return plain if prior is None else plain | {"prior": prior.model_dump()}


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
