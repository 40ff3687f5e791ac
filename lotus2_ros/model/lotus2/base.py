"""Lotus-2: one FLUX transformer that turns the latent of an image into the latent of its disparity or normals.

The core predictor does it in one deterministic pass. The detail sharpener refines the result in a few Euler steps of a
rectified flow (arXiv 2512.01030). This file has what the trainable form (`trainable.py`) and the fused form
(`fused.py`) share: the local continuity module and the sharpener's steps.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from lotus2_ros.model.euler import EulerSteps
from lotus2_ros.model.interface import GeometryModel
from lotus2_ros.model.layers.lora import LoraPlan
from lotus2_ros.model.lotus2.continuity import LocalContinuity
from lotus2_ros.model.manifest import ModelSettings, Task

CORE, SHARPENER = "core_predictor", "detail_sharpener"
CORE_TIMESTEP = 1.0


def adapter_name(stage: str, task: str) -> str:
    return f"{stage}_{task}"


@dataclass(frozen=True)
class FusedPlan(LoraPlan):
    """How the stages of some tasks share one base in a fused model.

    The base is the core predictor of one task, its LoRA merged if it has one. timesteps: number of polynomials and of
    basis vectors of the modulation (`layers/adaln.py`).
    """

    tasks: tuple[Task, ...]
    timesteps: tuple[int, int]

    @property
    def deltas(self) -> tuple[str, ...]:
        """The stages that are not the base, by their adapters' names; a core predictor may have no LoRA of its own."""
        names = [adapter_name(stage, task) for stage in (CORE, SHARPENER) for task in self.tasks]
        return tuple(name for name in names if name != self.base and (name in self.adapters or name.startswith(CORE)))


class Lotus2(GeometryModel):
    """The model without its transformer, which a subclass adds."""

    def __init__(
        self,
        vae: AutoencoderKL,
        scheduler: FlowMatchEulerDiscreteScheduler,
        settings: ModelSettings,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(vae, settings, latent_multiple=2, metadata=metadata)
        self.scheduler = scheduler
        self.continuity = nn.ModuleDict({task: LocalContinuity(vae.config.latent_channels) for task in self.tasks})

    @property
    @abstractmethod
    def prompt_tokens(self) -> int:
        """Number of tokens of the constant prompt."""

    def require(self, stage: str, task: str) -> None:
        """Raise ValueError unless the model has this stage for this task."""
        self.require_task(task)
        if stage == SHARPENER and not self.has_sharpener(task):
            raise ValueError(f"{self.name} has no {stage} for {task}")

    # Latent -> latent

    def core(self, latent: Tensor, task: str) -> Tensor:
        """The core predictor: image latent (B, C, h, w) -> annotation latent, same shape, in one pass."""
        self.require(CORE, task)
        return self.continuity[task](self.transform(latent, CORE, task, CORE_TIMESTEP))

    def predict(self, latent: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        return {task: self.core(latent, task) for task in tasks}

    def velocity(self, latent: Tensor, task: str, sigma: float | Tensor) -> Tensor:
        """The detail sharpener's d latent / d sigma at sigma, a number or (B,), between 1 (coarse) and 0 (sharp)."""
        self.require(SHARPENER, task)
        return self.transform(latent, SHARPENER, task, sigma * self.scheduler.config.num_train_timesteps)

    def sharpen(self, latent: Tensor, task: str, steps: int | None = None) -> EulerSteps:
        self.require(SHARPENER, task)  # told here rather than in the middle of a step
        height, width = latent.shape[2:]
        sigmas = self.sigmas(self.settings.sharpener_steps if steps is None else steps, height * width // 4)
        return EulerSteps(latent.to(self.dtype), lambda sharp, sigma: self.velocity(sharp, task, sigma), sigmas)

    def sigmas(self, steps: int, tokens: int) -> list[float]:
        """The sharpener's steps + 1 noise levels from 1 to 0, shifted for a latent of that many tokens."""
        if steps < 1:
            raise ValueError(f"expected at least one sharpener step, got {steps}")
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.scheduler.config)
        config, shift = scheduler.config, None
        if config.use_dynamic_shifting:
            slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
            shift = config.base_shift + slope * (tokens - config.base_image_seq_len)
        scheduler.set_timesteps(sigmas=[(steps - i) / steps for i in range(steps)], mu=shift)
        return scheduler.sigmas.tolist()

    @abstractmethod
    def transform(self, latent: Tensor, stage: str, task: str, timestep: float | Tensor) -> Tensor:
        """One pass of the transformer of that stage and task, at a timestep (a number or (B,)) on its own scale."""
