"""The one training loop; a stage is a set of parameters and a loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from lotus2_ros.training.config import StageConfig

# A loss of one batch: step number and the step's own random numbers -> scalar.
Loss = Callable[[int, torch.Generator], Tensor]
REPORT_EVERY = 50


def train(
    name: str,
    parameters: Mapping[str, Tensor],
    loss: Loss,
    stage: StageConfig,
    folder: Path,
    seed: int,
    checkpoint_every: int,
) -> None:
    """Minimise `loss`: AdamW with warm-up, cosine decay and clipped gradients.

    Goes on from `folder/<name>.pt` where there is one and leaves the finished parameters there. Every step has random
    numbers of its own, so a run that was interrupted ends as if it had not been.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.pt"
    optimizer = torch.optim.AdamW(list(parameters.values()), stage.learning_rate, weight_decay=stage.weight_decay)
    start = _resume(path, parameters, optimizer) if path.exists() else 0
    mean, since = 0.0, time.monotonic()
    for step in range(start, stage.steps):
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate * _schedule(step, stage)
        value = loss(step, torch.Generator().manual_seed(seed * 1_000_003 + step))
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        mean += float(value.detach()) / REPORT_EVERY
        done = step + 1
        if done % REPORT_EVERY == 0:
            pace = (time.monotonic() - since) / REPORT_EVERY
            print(f"{name} {done}/{stage.steps} loss {mean:.4f} {pace:.2f} s/step", flush=True)
            mean, since = 0.0, time.monotonic()
        if done % checkpoint_every == 0 or done == stage.steps:
            _save(path, done, parameters, optimizer)


def _schedule(step: int, stage: StageConfig) -> float:
    warm = min(1.0, (step + 1) / stage.warm_up)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / stage.steps)))


def _save(path: Path, step: int, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    partial = path.with_suffix(".part")
    state = {name: tensor.detach() for name, tensor in parameters.items()}
    torch.save({"step": step, "parameters": state, "optimizer": optimizer.state_dict()}, partial)
    partial.replace(path)


def _resume(path: Path, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> int:
    saved = torch.load(path, weights_only=True)
    if saved["parameters"].keys() != parameters.keys():
        raise ValueError(f"{path}: is of another configuration; remove it or choose another folder")
    with torch.no_grad():
        for name, tensor in parameters.items():
            tensor.copy_(saved["parameters"][name])
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["step"])
