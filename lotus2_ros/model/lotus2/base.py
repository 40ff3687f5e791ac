"""Lotus-2: one FLUX transformer that turns the latent of an image into the latent of its disparity or normals.

The core predictor does it in one deterministic pass; the detail sharpener refines the result in a few Euler steps of a
rectified flow (arXiv 2512.01030). What is common to the form that is trained and released (`adapted.py`) and to the one
that runs (`fused.py`) is here: the local continuity module, the sharpener's loop.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from lotus2_ros.model.euler import EulerSteps
from lotus2_ros.model.interface import GeometryModel
from lotus2_ros.model.lotus2.continuity import LocalContinuity

CORE, SHARPENER = "core_predictor", "detail_sharpener"
CORE_TIMESTEP = 1.0


def adapter_name(stage: str, task: str) -> str:
    return f"{stage}_{task}"


class Lotus2(GeometryModel):
    """The network and what belongs to it, but for its transformer, which a subclass brings.

    `conditioning`: the dtype in which timestep and guidance are rounded; all else as for `GeometryModel`.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        scheduler: FlowMatchEulerDiscreteScheduler,
        *,
        tasks: Sequence[str],
        process_resolution: int,
        process_by_area: bool = False,
        antialias: bool = False,
        sharpener_steps: int = 10,
        sharpens: bool = True,
        conditioning: str = "bfloat16",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            vae,
            tasks=tasks,
            latent_multiple=2,
            process_resolution=process_resolution,
            antialias=antialias,
            metadata=metadata,
        )
        self.scheduler = scheduler
        self.continuity = nn.ModuleDict({task: LocalContinuity(vae.config.latent_channels) for task in tasks})
        self.sharpener_steps = sharpener_steps
        self.sharpens = sharpens
        self.process_by_area = process_by_area
        self.conditioning = conditioning

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor's keyword arguments that made this model."""
        names = (
            "tasks", "process_resolution", "process_by_area", "antialias", "sharpener_steps", "sharpens",
            "conditioning", "metadata",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

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
        sigmas = self.sigmas(self.sharpener_steps if steps is None else steps, height * width // 4)
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
