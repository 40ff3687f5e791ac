"""A whole run: data, network, the stages in turn, and the trained model on disk."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor

from lotus2_ros.model.trainable import TrainableModel
from lotus2_ros.training import loop, recorded, rendered
from lotus2_ros.training.batches import Batch, Batches, Group
from lotus2_ros.training.config import RecordedConfig, TrainingConfig
from lotus2_ros.training.latents import measure_latents

PATIENCE = timedelta(hours=12)
PANEL_ROWS = 4
MEASURED_BATCHES = 24  # for mean and deviation of the latents
LOOKED_AT = -1  # stands for a stage's number in the seed of the batches for panels


def train(config: TrainingConfig, work: Path, output: Path, workers: int) -> None:
    """Run all stages and save the model; continues an interrupted run in `work`."""
    # A step uses the LoRAs of one task only, and processes wait while the first one renders or scans a data set.
    parallel = DistributedDataParallelKwargs(find_unused_parameters=True), InitProcessGroupKwargs(timeout=PATIENCE)
    accelerator = Accelerator(kwargs_handlers=list(parallel))
    with accelerator.main_process_first():
        groups = _load(config, work, workers)
    torch.manual_seed(config.seed)
    model = config.network.build(config.tasks, config.stages, accelerator.device)
    run_stages(accelerator, model, groups, config, work)
    if accelerator.is_main_process:
        metadata = {"name": config.name, "licence": config.licence, "card": "README.md"}
        config.network.save(model, output, metadata)


def _load(config: TrainingConfig, work: Path, workers: int) -> list[Group]:
    if isinstance(config.data, RecordedConfig):
        return recorded.load(config.data)
    rendered.render(work / "scenes", config.data, workers)
    return rendered.load(work / "scenes", config.data)


def run_stages(
    accelerator: Accelerator,
    model: TrainableModel,
    groups: Sequence[Group],
    config: TrainingConfig,
    folder: Path,
) -> None:
    """Train the model in all stages. Checkpoints, curves and panels go to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    model.hold_channels_last()
    if config.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    for index, stage in enumerate(config.stages):
        batches_of = partial(
            Batches, groups, stage.tasks or config.tasks, stage.batch, multiple=model.multiple, size=stage.size,
            crop=stage.crop, random_convolution=stage.random_convolution, jitter=config.jitter,
            rank=accelerator.process_index,
        )  # fmt: skip
        batches = batches_of(seed=hash((config.seed, index)))
        looked_at = batches_of(seed=hash((config.seed, LOOKED_AT)))
        panels = partial(_panels, model, stage.objective, [looked_at[number] for number in range(len(config.tasks))])
        part = stage.objective.part()
        with model.first_blocks(stage.single_blocks):
            loop.train(accelerator, model, model.trainable_parameters(part), batches, stage, config, folder, panels)
        if part == "vae":
            measure_latents(model, [looked_at[number] for number in range(MEASURED_BATCHES)])
    model.eval().requires_grad_(False)


@torch.no_grad()
def _panels(model: TrainableModel, objective: Any, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """For each batch's task a panel with rows of image, prediction and truth, (3, H, W) in [0, 1]."""
    panels = {}
    # LoRAs are float32 even on a bfloat16 base.
    mixed = torch.autocast(model.device.type, torch.bfloat16, enabled=model.dtype == torch.bfloat16)
    for batch in batches:
        moved = batch.to(model.device)
        image, truth = moved.image[:PANEL_ROWS], moved.annotation[:PANEL_ROWS]
        with mixed:
            answer = model.decode(objective.predict(model, model.encode(image), batch.task, batch.generator()))
        rows = torch.cat((image * 0.5 + 0.5, answer, truth * 0.5 + 0.5), dim=3)
        panels[batch.task] = torch.cat(list(rows), dim=1).cpu()
    return panels
