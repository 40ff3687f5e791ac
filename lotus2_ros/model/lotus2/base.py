"""Lotus-2: one FLUX transformer that turns the latent of an image into the latent of its disparity or normals.

The core predictor does it in one deterministic pass. The detail sharpener refines the result in a few Euler steps of a
rectified flow (arXiv 2512.01030). This file has what the trainable form (`trainable.py`) and the fused form
(`fused.py`) share: the local continuity module and the sharpener's steps. The network replaces the C channels of the
VAE and carries the F of an image prior along.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lotus2_ros.model.euler import EulerSteps
from lotus2_ros.model.layers.lora import LoraPlan
from lotus2_ros.model.lotus2.continuity import LocalContinuity
from lotus2_ros.model.lotus2.scheduler import Scheduler
from lotus2_ros.model.lotus2.uncertainty import UncertaintyHead
from lotus2_ros.model.manifest import ModelSettings, Task
from lotus2_ros.model.torch_model import TorchModel
from lotus2_ros.model.vae import Vae, VaeConfig

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


def moved(latent: Tensor, velocity: Tensor, delta: float | Tensor) -> Tensor:
    """latent (B, C + F, h, w) float32 after an Euler step along the velocity (B, C, h, w). The features do not move."""
    return latent + delta * F.pad(velocity.float(), (0, 0, 0, 0, 0, latent.shape[1] - velocity.shape[1]))


class Lotus2(TorchModel):
    """The model without its transformer, which a subclass adds.

    configs: by component; of these it reads `vae` and `scheduler`, and `prior` and `uncertainty`, if they are there.
    """

    def __init__(
        self,
        configs: Mapping[str, Mapping[str, Any]],
        settings: ModelSettings,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        vae = Vae(VaeConfig(**configs["vae"]))
        super().__init__(vae, settings, latent_multiple=2, metadata=metadata, prior=configs.get("prior"))
        self.scheduler = Scheduler(**configs["scheduler"])
        head = configs.get("uncertainty")
        self.uncertainty = None if head is None else UncertaintyHead(head, self.latent_channels)
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

    # Latent -> latent, (B, C + F, h, w)

    def core(self, latent: Tensor, task: str) -> Tensor:
        """The core predictor: image latent -> annotation latent, same shape, in one pass."""
        self.require(CORE, task)
        return self.carry_features(self.continuity[task](self.transform(latent, CORE, task, CORE_TIMESTEP)), latent)

    def predict(self, latent: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        return {task: self.core(latent, task) for task in tasks}

    @property
    def has_uncertainty(self) -> bool:
        return self.uncertainty is not None

    def predict_uncertainty(self, latent: Tensor) -> Tensor:
        if self.uncertainty is None:
            return super().predict_uncertainty(latent)
        return self.executor(("uncertainty",), self.uncertainty.deviation, latent.to(self.dtype))

    def velocity(self, latent: Tensor, task: str, sigma: float | Tensor) -> Tensor:
        """The detail sharpener's d latent / d sigma at sigma, a number or (B,), between 1 (coarse) and 0 (sharp); of
        the first C channels."""
        self.require(SHARPENER, task)
        return self.transform(latent, SHARPENER, task, sigma * self.scheduler.num_train_timesteps)

    def sharpen(self, latent: Tensor, task: str, steps: int | None = None) -> EulerSteps:
        self.require(SHARPENER, task)  # told here rather than in the middle of a step
        height, width = latent.shape[2:]
        steps = self.settings.sharpener_steps if steps is None else steps
        sigmas = self.scheduler.sigmas(steps, height * width // 4)

        def move(sharp: Tensor, sigma: float, following: float) -> Tensor:
            return moved(sharp, self.velocity(sharp.to(self.dtype), task, sigma), following - sigma)

        return EulerSteps(latent.to(self.dtype), move, sigmas)

    @abstractmethod
    def transform(self, latent: Tensor, stage: str, task: str, timestep: float | Tensor) -> Tensor:
        """One pass of the transformer of that stage and task, at a timestep (a number or (B,)) on its own scale:
        (B, C + F, h, w) -> (B, C, h, w)."""
