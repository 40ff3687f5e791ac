"""The training loop, for any model and objective."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lotus2_ros.model.layers.precision import multiplies_bfloat16
from lotus2_ros.model.torch_model import TorchModel
from lotus2_ros.training.batches import Batch, Batches
from lotus2_ros.training.checkpoint import resume, save
from lotus2_ros.training.config import StageConfig, TrainingConfig
from lotus2_ros.training.optimizer import optimizers_for
from lotus2_ros.training.progress import TrainingLog

FLOOR = 0.01  # final learning rate of the cosine schedule, as a share of the initial one
GRADIENT_NORM = 1.0


class ObjectiveModule(nn.Module):
    """batch -> loss, as a module, which is what distributed training wraps."""

    def __init__(self, model: TorchModel, objective: Any) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> Tensor:
        return self.objective.loss(self.model, batch)


def train(
    accelerator: Accelerator,
    model: TorchModel,
    parameters: Mapping[str, Tensor],
    batches: Batches,
    stage: StageConfig,
    config: TrainingConfig,
    folder: Path,
    panels: Callable[[], Mapping[str, Tensor]],
) -> None:
    """Train `parameters` for one stage, with warm-up and gradient clipping.

    Continues from `folder/<stage>.safetensors` if it exists, with the same losses as an uninterrupted run, and leaves
    the trained parameters there. `panels()` returns images (3, H, W) in [0, 1] for tensorboard, by name.
    """
    checkpoint = folder / f"{stage.name}.safetensors"
    model.requires_grad_(False)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    began = _copy(parameters) if stage.interpolate_start else {}
    optimizers = optimizers_for(parameters, stage)
    mean = {} if stage.average_after is None else _copy(parameters)
    start = resume(checkpoint, parameters, optimizers, mean) if checkpoint.exists() else 0
    if start >= stage.steps:
        return
    accelerator.step, accelerator.gradient_accumulation_steps = 0, stage.accumulate
    module, *optimizers = accelerator.prepare(ObjectiveModule(model, stage.objective), *optimizers)
    # A bfloat16 base with float32 LoRAs needs autocast on any device.
    worth_it = multiplies_bfloat16(accelerator.device) or model.dtype == torch.bfloat16
    mixed = stage.mixed_precision == "bf16" and worth_it
    losses: list[Tensor] = []
    with TrainingLog(folder, stage.name, start, stage.steps, shown=accelerator.is_main_process) as progress:
        for number, batch in _numbered(batches, start * stage.accumulate, stage.steps * stage.accumulate, config):
            done, part = divmod(number + 1, stage.accumulate)
            rate = stage.learning_rate * _schedule(number // stage.accumulate, stage)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate
            losses.append(_step(accelerator, module, optimizers, parameters, batch, mixed))
            if part:
                continue
            if stage.average_after is not None and done > stage.average_after:
                _mix(mean, parameters, 1 / (done - stage.average_after))
            if done == stage.steps:
                _mix(parameters, mean, 1.0)
                _mix(parameters, began, stage.interpolate_start)
            if done % config.report_every == 0 or done == stage.steps:
                loss = accelerator.reduce(torch.stack(losses).mean(), "mean")
                progress.report(done, float(loss), rate)
                losses.clear()
            if accelerator.is_main_process and (done % config.panels_every == 0 or done == stage.steps):
                progress.show(done, panels())
            if accelerator.is_main_process and (done % config.checkpoint_every == 0 or done == stage.steps):
                save(checkpoint, done, parameters, optimizers, mean)
    accelerator.wait_for_everyone()
    accelerator.free_memory()


def _copy(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


@torch.no_grad()
def _mix(parameters: Mapping[str, Tensor], others: Mapping[str, Tensor], share: float) -> None:
    """Move `parameters`, in place, toward those of `others` by a share of the way."""
    for name, other in others.items():
        parameters[name].lerp_(other, share)


def _step(
    accelerator: Accelerator,
    module: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    parameters: Mapping[str, Tensor],
    batch: Batch,
    mixed: bool,
) -> Tensor:
    """Accumulate the gradient of a batch, and step the optimizers after the last one; returns the loss."""
    device = accelerator.device
    with accelerator.accumulate(module):
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = module(batch.to(device))
        accelerator.backward(loss)
        if accelerator.sync_gradients:
            accelerator.clip_grad_norm_(list(parameters.values()), GRADIENT_NORM)
        for optimizer in optimizers:  # accelerate's wrappers, which skip all but the last batch
            optimizer.step()
            optimizer.zero_grad()
    return loss.detach()


def _numbered(batches: Batches, start: int, stop: int, config: TrainingConfig) -> Iterator[tuple[int, Batch]]:
    """Numbers and batches, prepared by `config.loaders` processes."""
    numbers = range(start, stop)
    return zip(numbers, DataLoader(batches, None, sampler=numbers, num_workers=config.loaders), strict=True)


def _schedule(step: int, stage: StageConfig) -> float:
    warm = min(1.0, (step + 1) / max(1, stage.warm_up))
    if stage.schedule == "constant":
        return warm
    return warm * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * step / stage.steps)))
