"""What a training run is: read from one YAML file, strictly. The files in config/train/ are the runs we know."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lotus2_ros.training.lotus import LotusObjective
from lotus2_ros.training.objectives import Autoencoder, Objective, StochasticFlow

Task = Literal["depth", "normals"]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Bucket(Section):
    """Views of one size, and how often; `kind` of scene, any if None; `of_things` from near: see `scenes.views`."""

    height: Count
    width: Count
    share: float = Field(gt=0)
    kind: str | None = None
    of_things: bool = False


class ScenesConfig(Section):
    """Our own scenes, rendered once."""

    source: Literal["scenes"]
    shards: Count
    scenes_per_shard: Count
    views_per_scene: Count
    buckets: tuple[Bucket, ...]


class RecordedSet(Section):
    """A data set on disk. `size`: height and width that its views are brought to, multiples of 16 for FLUX; `weight`:
    how often a batch comes from it, beside the others."""

    name: Literal["hypersim", "virtual_kitti"]
    folder: Path
    size: tuple[Count, Count]
    weight: float = Field(gt=0)


class RecordedConfig(Section):
    """Data sets that others have made."""

    source: Literal["recorded"]
    sets: tuple[RecordedSet, ...]


class NetworkConfig(Section):
    """A small network from nothing. `patch`: side of the square of latent pixels that is one token (pack-unpack: 2)."""

    source: Literal["scratch"]
    vae_widths: tuple[int, ...]
    vae_groups: Count  # at least 4 channels each: a group of one channel loses its mean
    latent_channels: Count
    heads: Count
    head_size: Count
    rotary_axes: tuple[int, int, int]
    double_blocks: Count
    single_blocks: Count
    prompt_tokens: Count
    core_rank: Count
    sharpener_rank: Count
    process_resolution: Count
    sharpener_steps: Count
    process_by_area: bool = False
    sharpens: bool = True  # whether a node sharpens without being asked for steps
    patch: Literal[1, 2] = 2


class UnetConfig(Section):
    """A small Lotus-D, or `generative` Lotus-G, from nothing. `widths` of the U-Net's levels, each of half the size."""

    source: Literal["unet"]
    generative: bool
    vae_widths: tuple[int, ...]
    vae_groups: Count
    latent_channels: Count
    widths: tuple[int, ...]
    layers: Count
    heads: Count
    groups: Count
    process_resolution: Count


class ReleasedConfig(Section):
    """FLUX.1-dev, frozen, with new adapters of each task's rank. `flux`: its folder in diffusers' layout; `lotus2`:
    folder of `lotus-2_*` files to start from, a core predictor's at least."""

    source: Literal["released"]
    flux: Path
    lotus2: Path | None = None
    ranks: dict[Task, Count]
    base_dtype: Literal["float32", "bfloat16"]


class StageConfig(Section):
    """One stage: an objective and how long. `size`, `crop` and `filtered` of the images: see `Batches`; `batch` of each
    process and `accumulate` of them to a step; `single_blocks`: how many of a network's from nothing take part, all if
    None; one that takes part for the first time adds nothing yet; `kept`: the share of the weights that the stage began
    with in those it leaves, which are their mean with what it learnt (arXiv 2109.01903); `mean_from`: the step after
    which the weights are averaged, so that it leaves their mean (arXiv 1803.05407) and not, as if None, the last."""

    name: str = Field(pattern=r"^\w+$")
    objective: Objective = Field(discriminator="kind")
    steps: Count
    batch: Count
    learning_rate: float = Field(gt=0)
    warm_up: int = Field(default=0, ge=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    weight_decay: float = Field(default=0.01, ge=0)
    optimizer: Literal["adamw", "muon"] = "adamw"
    accumulate: Count = 1
    size: float = Field(default=1.0, gt=0, le=1)
    crop: float = Field(default=1.0, gt=0, le=1)
    filtered: float = Field(default=0.0, ge=0, le=1)
    single_blocks: Count | None = None
    kept: float = Field(default=0.0, ge=0, lt=1)
    mean_from: int | None = Field(default=None, ge=0)
    mixed_precision: Literal["no", "bf16"] = "no"  # on a CPU without instructions for bfloat16 float32 all the same

    @model_validator(mode="after")
    def _averages(self) -> StageConfig:
        if self.mean_from is not None and self.mean_from >= self.steps:
            raise ValueError(f"expected mean_from below steps, {self.steps}, got {self.mean_from}")
        return self


class TrainingConfig(Section):
    name: str
    licence: str
    seed: int
    tasks: tuple[Task, ...]
    network: NetworkConfig | UnetConfig | ReleasedConfig = Field(discriminator="source")
    data: ScenesConfig | RecordedConfig = Field(discriminator="source")
    stages: tuple[StageConfig, ...]
    report_every: Count
    checkpoint_every: Count  # a multiple of report_every, so that a resumed run reports the same
    panels_every: Count
    jitter: bool = True  # of the images' colours
    loaders: int = Field(default=0, ge=0)  # processes that make batches beside the training
    gradient_checkpointing: bool = False

    @model_validator(mode="after")
    def _distinct(self) -> TrainingConfig:
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError(f"expected stages of different names, got {', '.join(names)}")
        if self.checkpoint_every % self.report_every:
            raise ValueError(f"expected checkpoint_every to be a multiple of report_every, got {self.checkpoint_every}")
        return self

    @model_validator(mode="after")
    def _fits_the_network(self) -> TrainingConfig:
        source = self.network.source
        for objective in (stage.objective for stage in self.stages):
            of_unets = isinstance(objective, LotusObjective)
            fits = (of_unets or isinstance(objective, Autoencoder)) if source == "unet" else not of_unets
            if not fits:
                raise ValueError(f"expected objectives for network.source {source}, got {objective.kind}")
        return self

    @model_validator(mode="after")
    def _grows(self) -> TrainingConfig:
        depths = [stage.single_blocks for stage in self.stages if stage.objective.part() != "vae"]
        if not isinstance(self.network, NetworkConfig):
            if any(depths):
                raise ValueError("expected single_blocks of stages only where network.source is scratch")
            return self
        all_blocks = self.network.single_blocks
        grown = [depth or all_blocks for depth in depths]
        if grown != sorted(grown) or max(grown, default=0) > all_blocks:
            raise ValueError(f"expected single_blocks of stages that grow to {all_blocks} at most, got {grown}")
        return self

    @model_validator(mode="after")
    def _fits_the_released(self) -> TrainingConfig:
        if self.network.source != "released":
            return self
        parts = [stage.objective.part() for stage in self.stages]
        if missing := set(self.tasks) - self.network.ranks.keys():
            raise ValueError(f"expected network.ranks of every task, got none of {', '.join(sorted(missing))}")
        if "vae" in parts:
            raise ValueError("expected stages of core and sharpener, as FLUX's VAE is kept; got an autoencoder")
        if any(isinstance(stage.objective, StochasticFlow) for stage in self.stages):
            raise ValueError("expected objectives on the image's latent alone, as FLUX takes it; got stochastic_flow")
        if parts[:1] == ["sharpener"] and self.network.lotus2 is None:
            raise ValueError("expected network.lotus2 with a trained core before the sharpener, got none")
        if self.network.base_dtype == "bfloat16" and any(stage.mixed_precision == "no" for stage in self.stages):
            raise ValueError("expected mixed_precision: bf16 of every stage on a base in bfloat16, got no")
        return self


def read_config(path: Path, changes: list[str]) -> TrainingConfig:
    """The run of a YAML file; `changes`: key=value, keys dotted, a stage by its name (stages.core.steps=10).

    Raises ValueError that names the file, the key, what was expected and what came.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping, got {type(content).__name__}")
    for change in changes:
        _apply(content, change)
    try:
        return TrainingConfig(**content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path}: {place}: {first['msg']}, got {str(first['input'])[:80]!r}") from None


def _apply(content: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals:
        raise ValueError(f"expected key=value, got {change!r}")
    place: Any = content
    *path, last = key.split(".")
    for name in path:
        if isinstance(place, list):
            place = next((item for item in place if item.get("name") == name), None)
        else:
            place = place.get(name) if isinstance(place, dict) else None
        if not isinstance(place, (dict, list)):
            raise ValueError(f"expected a key of the configuration, got {key!r}: there is no {name!r}")
    if not isinstance(place, dict):
        raise ValueError(f"expected a key of the configuration, got {key!r}")
    place[last] = yaml.safe_load(value)
