"""The configuration of a training run, read strictly from one YAML file. The files in config/train/ are examples."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lotus2_ros.model.families import FAMILIES
from lotus2_ros.model.manifest import Task, first_problem
from lotus2_ros.model.trainable import Count, NetworkConfig
from lotus2_ros.training.objectives import Objective

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    Network = NetworkConfig
else:
    _NETWORKS = tuple(network for family in FAMILIES for network in family.networks())
    Network = Annotated[Union[_NETWORKS], Field(discriminator="source")]  # noqa: UP007, known at run time only

# Former keys and objectives, which YAML files may still have.
FORMER_KEYS = {
    "kept": "interpolate_start",
    "mean_from": "average_after",
    "filtered": "random_convolution",
    "of_things": "close_up",
    "sharpens": "sharpen_by_default",
}
FORMER_KINDS = {"lotus1": "lotus", "lotus1_end_to_end": "lotus_end_to_end"}


class RunSection(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Bucket(RunSection):
    """Views of one size. share: of the scenes. kind: of scene, any if None. close_up: see `scenes.views`."""

    height: Count
    width: Count
    share: float = Field(gt=0)
    kind: str | None = None
    close_up: bool = False


class ScenesConfig(RunSection):
    """Our own scenes, rendered once; with `assets` things and photographs of that folder in all but the first
    `plain_shards` of them, see `scenes.assets`."""

    source: Literal["scenes"]
    shards: Count
    scenes_per_shard: Count
    views_per_scene: Count
    buckets: tuple[Bucket, ...]
    assets: Path | None = None
    plain_shards: int = Field(default=0, ge=0)


class RecordedSet(RunSection):
    """A data set on disk. size: height and width to which its views are resized, multiples of 16 for FLUX. weight: how
    often a batch comes from this set, relative to the others."""

    name: Literal["hypersim", "virtual_kitti"]
    folder: Path
    size: tuple[Count, Count]
    weight: float = Field(gt=0)


class RecordedConfig(RunSection):
    """Public data sets."""

    source: Literal["recorded"]
    sets: tuple[RecordedSet, ...]


class StageConfig(RunSection):
    """One stage of training: an objective, and how it is optimized.

    tasks: those of its batches, in turn; None: all of the run.
    batch: images of each process in one forward pass. accumulate: batches per optimizer step.
    size, crop, random_convolution: of the images, see `Batches`.
    single_blocks: how many of the single blocks of a network from scratch take part; None: all. A block that takes part
    for the first time adds nothing yet.
    interpolate_start: share of the weights before the stage in its result, which interpolates linearly between those
    and the trained weights (WiSE-FT, arXiv 2109.01903).
    average_after: the step after which the weights are averaged; the stage then ends with their mean (SWA, arXiv
    1803.05407). None: it ends with the last weights.
    mixed_precision: bf16 has no effect on a CPU without bfloat16 instructions.
    """

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
    random_convolution: float = Field(default=0.0, ge=0, le=1)
    tasks: tuple[Task, ...] | None = None
    single_blocks: Count | None = None
    interpolate_start: float = Field(default=0.0, ge=0, lt=1)
    average_after: int | None = Field(default=None, ge=0)
    mixed_precision: Literal["no", "bf16"] = "no"

    @model_validator(mode="after")
    def _check(self) -> StageConfig:
        if self.average_after is not None and self.average_after >= self.steps:
            raise ValueError(f"expected average_after below steps, {self.steps}, got {self.average_after}")
        if self.objective.part() == "uncertainty" and self.tasks != ("depth",):
            raise ValueError(f"expected tasks [depth] for the objective uncertainty, got {self.tasks}")
        return self


class TrainingConfig(RunSection):
    """A whole run."""

    name: str
    licence: str
    seed: int
    tasks: tuple[Task, ...]
    network: Network
    data: ScenesConfig | RecordedConfig = Field(discriminator="source")
    stages: tuple[StageConfig, ...]
    report_every: Count
    checkpoint_every: Count  # a multiple of report_every, so that a resumed run reports the same
    panels_every: Count
    jitter: bool = True  # of the images' colors
    loaders: int = Field(default=0, ge=0)  # processes that prepare batches
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
        network = self.network
        for kind in (stage.objective.kind for stage in self.stages):
            if kind not in network.objectives:
                known = ", ".join(network.objectives)
                raise ValueError(f"expected objectives for network.source {network.source} ({known}), got {kind}")
        network.check(self.tasks, self.stages)
        return self


def read_config(path: Path, changes: list[str]) -> TrainingConfig:
    """The run that a YAML file describes.

    changes: key=value, with dotted keys and stages by name (stages.core.steps=10). Raises ValueError that names the
    file, the key, the expected and the given value.
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
        return TrainingConfig.model_validate(_with_present_names(content, path, set()))
    except ValidationError as error:
        raise ValueError(f"{path}: {first_problem(error)}") from None


def _with_present_names(content: Any, path: Path, said: set[str]) -> Any:
    """The content with former keys and objectives replaced; one warning for each."""
    if isinstance(content, list):
        return [_with_present_names(item, path, said) for item in content]
    if not isinstance(content, dict):
        return content
    renamed: dict[Any, Any] = {}
    for key, value in content.items():
        present = FORMER_KEYS.get(key, key) if isinstance(key, str) else key
        if present in renamed or (present != key and present in content):
            raise ValueError(f"{path}: expected {present} alone, got it together with its former name; remove {key}")
        renamed[present] = _with_present_names(value, path, said)
        if present != key:
            _announce(path, key, present, said)
    kind = renamed.get("kind")
    if isinstance(kind, str) and kind in FORMER_KINDS:
        renamed["kind"] = FORMER_KINDS[kind]
        _announce(path, kind, FORMER_KINDS[kind], said)
    return renamed


def _announce(path: Path, former: str, present: str, said: set[str]) -> None:
    if former not in said:
        said.add(former)
        log.warning("%s: %s is now called %s; the old name still works", path, former, present)


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
