"""A whole run: data, network, one stage after the other, a model on disk."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor

from lotus2_ros.model.lotus.bundle import save_lotus
from lotus2_ros.model.lotus.lotus import Lotus
from lotus2_ros.model.lotus2.bundle import save_bundle
from lotus2_ros.model.lotus2.trainable import TrainableLotus2
from lotus2_ros.training import loop, network, recorded, rendered
from lotus2_ros.training.batches import Batch, Batches, Group
from lotus2_ros.training.config import RecordedConfig, ReleasedConfig, TrainingConfig, UnetConfig

PATIENCE = timedelta(hours=12)
PANEL_ROWS = 4
MEASURED_BATCHES = 24  # for the latents' mean and deviation
LOOKED_AT = -1  # in place of a stage's number: batches that no stage learns from in this order


def train(config: TrainingConfig, work: Path, output: Path, workers: int) -> None:
    """The whole way; goes on where an earlier run in `work` was interrupted."""
    # A step uses the adapters of one task; and the others wait while one process renders or looks through a data set.
    parallel = DistributedDataParallelKwargs(find_unused_parameters=True), InitProcessGroupKwargs(timeout=PATIENCE)
    accelerator = Accelerator(kwargs_handlers=list(parallel))
    with accelerator.main_process_first():
        groups = _load(config, work, workers)
    torch.manual_seed(config.seed)
    model = _build(config, accelerator.device)
    run_stages(accelerator, model, groups, config, work)
    if accelerator.is_main_process:
        _save(model, config, output)


def _load(config: TrainingConfig, work: Path, workers: int) -> list[Group]:
    if isinstance(config.data, RecordedConfig):
        return recorded.load(config.data)
    rendered.render(work / "scenes", config.data, workers)
    return rendered.load(work / "scenes", config.data)


def _build(config: TrainingConfig, device: torch.device) -> TrainableLotus2 | Lotus:
    if isinstance(config.network, UnetConfig):
        return network.build_lotus(config.network, config.tasks).to(device)
    if isinstance(config.network, ReleasedConfig):
        from lotus2_ros.training import released  # text encoders: a model from nothing needs none

        return released.build(config.network, config.tasks, config.stages, device)
    return network.build(config.network, config.tasks, config.stages).to(device)


def _save(model: TrainableLotus2 | Lotus, config: TrainingConfig, output: Path) -> None:
    """In the layout in which such a model is released, or as a bundle."""
    metadata = {"name": config.name, "licence": config.licence, "card": "README.md"}
    if isinstance(model, Lotus):
        return save_lotus(model, output, metadata=metadata, dtype=torch.float16)
    if isinstance(config.network, ReleasedConfig):
        from lotus2_ros.model.lotus2.released import save_adapters

        return save_adapters(model, output)
    return save_bundle(model, output, metadata=metadata, dtype=torch.float16)


def run_stages(
    accelerator: Accelerator,
    model: TrainableLotus2 | Lotus,
    groups: Sequence[Group],
    config: TrainingConfig,
    folder: Path,
) -> None:
    """Every stage on the model, which is then trained; checkpoints, curves and pictures go to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    model.vae.to(memory_format=torch.channels_last)
    if config.gradient_checkpointing:
        networks: list[Any] = [*model.unets.values()] if isinstance(model, Lotus) else [model.transformer]
        for each in networks:
            each.enable_gradient_checkpointing()
    for index, stage in enumerate(config.stages):
        batches_of = partial(
            Batches, groups, config.tasks, stage.batch, multiple=model.multiple, size=stage.size,
            crop=stage.crop, filtered=stage.filtered, jitter=config.jitter, rank=accelerator.process_index,
        )  # fmt: skip
        batches = batches_of(seed=hash((config.seed, index)))
        looked_at = batches_of(seed=hash((config.seed, LOOKED_AT)))
        panels = partial(_panels, model, stage.objective, [looked_at[number] for number in range(len(config.tasks))])
        part = stage.objective.part()
        with network.shallow(model, stage.single_blocks):
            loop.train(accelerator, model, network.parameters_of(model, part), batches, stage, config, folder, panels)
        if part == "vae":
            network.measure_latents(model, [looked_at[number] for number in range(MEASURED_BATCHES)])
    model.eval().requires_grad_(False)


@torch.no_grad()
def _panels(model: TrainableLotus2 | Lotus, objective: Any, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """For each batch's task a few rows of image, answer and truth, (3, H, W) in [0, 1]."""
    panels = {}
    # Adapters are float32 whatever the base is.
    mixed = torch.autocast(model.device.type, torch.bfloat16, enabled=model.dtype == torch.bfloat16)
    for batch in batches:
        moved = batch.to(model.device)
        image, truth = moved.image[:PANEL_ROWS], moved.annotation[:PANEL_ROWS]
        with mixed:
            answer = model.decode(objective.predict(model, model.encode(image), batch.task, batch.generator()))
        rows = torch.cat((image * 0.5 + 0.5, answer, truth * 0.5 + 0.5), dim=3)
        panels[batch.task] = torch.cat(list(rows), dim=1).cpu()
    return panels
