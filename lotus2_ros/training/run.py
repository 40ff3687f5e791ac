"""A whole run: data, network, one stage after the other, a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor

from lotus2_ros.model.adapted import AdaptedLotus2
from lotus2_ros.model.bundle import save_bundle
from lotus2_ros.training import loop, network, rendered
from lotus2_ros.training.batches import Batch, Batches, Group
from lotus2_ros.training.config import TrainingConfig
from lotus2_ros.training.objectives import Objective

PANEL_ROWS = 4
MEASURED_BATCHES = 24  # for the latents' mean and deviation
LOOKED_AT = -1  # in place of a stage's number: batches that no stage learns from in this order


def train(config: TrainingConfig, work: Path, output: Path, workers: int) -> None:
    """The whole way; goes on where an earlier run in `work` was interrupted."""
    # A step uses the adapters of one task.
    accelerator = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])
    with accelerator.main_process_first():
        rendered.render(work / "scenes", config.data, workers)
    groups = rendered.load(work / "scenes", config.data)
    torch.manual_seed(config.seed)
    model = network.build(config.network, config.tasks, config.stages).to(accelerator.device)
    run_stages(accelerator, model, groups, config, work)
    if accelerator.is_main_process:
        metadata = {"name": config.name, "licence": config.licence, "card": "README.md"}
        save_bundle(model, output, metadata=metadata, dtype=torch.float16)


def run_stages(
    accelerator: Accelerator, model: AdaptedLotus2, groups: Sequence[Group], config: TrainingConfig, folder: Path
) -> None:
    """Every stage on the model, which is then trained; checkpoints, curves and pictures go to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    model.vae.to(memory_format=torch.channels_last)
    if config.gradient_checkpointing:
        model.transformer.enable_gradient_checkpointing()
    if config.compile:
        _compile(model)
    for index, stage in enumerate(config.stages):
        batches_of = partial(
            Batches, groups, config.tasks, stage.batch, multiple=model.multiple, size=stage.size,
            rank=accelerator.process_index,
        )  # fmt: skip
        batches = batches_of(seed=hash((config.seed, index)))
        looked_at = batches_of(seed=hash((config.seed, LOOKED_AT)))
        panels = partial(_panels, model, stage.objective, [looked_at[number] for number in range(len(config.tasks))])
        part = stage.objective.part()
        loop.train(accelerator, model, network.parameters_of(model, part), batches, stage, config, folder, panels)
        if part == "vae":
            network.measure_latents(model, [looked_at[number] for number in range(MEASURED_BATCHES)])
    model.eval().requires_grad_(False)


@torch.no_grad()
def _panels(model: AdaptedLotus2, objective: Objective, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """For each batch's task a few rows of image, answer and truth, (3, H, W) in [0, 1]."""
    panels = {}
    for batch in batches:
        moved = batch.to(model.device)
        image, truth = moved.image[:PANEL_ROWS], moved.annotation[:PANEL_ROWS]
        answer = model.decode(objective.predict(model, model.encode(image), batch.task, batch.generator()))
        rows = torch.cat((image * 0.5 + 0.5, answer, truth * 0.5 + 0.5), dim=3)
        panels[batch.task] = torch.cat(list(rows), dim=1).cpu()
    return panels


def _compile(model: AdaptedLotus2) -> None:
    # One for each kind of block, size of image and state of the adapters.
    torch._dynamo.config.recompile_limit = 64
    for block in (*model.transformer.transformer_blocks, *model.transformer.single_transformer_blocks):
        block.compile()
