"""The facts about a model that a report contains, also if the model runs in another process."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lotus2_ros.config import SharpConfig
from lotus2_ros.inference.estimator import Estimator


@dataclass(frozen=True)
class ModelFacts:
    """The model of an estimator, which may be in another process or on another machine."""

    name: str
    precision: str
    device: str  # cpu, or the name of the GPU
    sharpened: tuple[str, ...]  # the tasks that have a detail sharpener
    sharpens_by_default: bool

    @classmethod
    def of(cls, estimator: Estimator) -> ModelFacts:
        model, device = estimator.model, estimator.device
        return cls(
            model.name,
            model.precision,
            device_name(device),
            tuple(filter(model.has_sharpener, model.tasks)),
            model.settings.sharpen_by_default,
        )

    def sharpener_note(self, sharp: SharpConfig) -> str:
        """Why a node's sharpener does not run; empty if it does."""
        if not self.sharpened:
            return f"{self.name} has no detail sharpener"
        if not any(map(sharp.refines, self.sharpened)):
            return f"{self.name} has no detail sharpener for {', '.join(sharp.tasks)} (sharp.tasks)"
        if not sharp.enabled:
            return "sharp.enabled is false"
        if not (self.sharpens_by_default or sharp.steps):
            return f"off by default for {self.name}, which gains little from it; set sharp.steps to a number of steps"
        return ""


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
