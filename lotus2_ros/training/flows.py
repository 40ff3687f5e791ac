"""The flows that the core predictor is compared with, and what the objectives of Lotus-2 have in common.

x is the image, y its annotation, z their latents, t in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from typing_extensions import Self

from lotus2_ros.model.lotus2.base import CORE
from lotus2_ros.model.lotus2.trainable import TrainableLotus2
from lotus2_ros.model.trainable import TrainedPart
from lotus2_ros.training.batches import Batch
from lotus2_ros.training.latents import encode, mean_square


class Lotus2Objective(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def part(self) -> TrainedPart:
        return "core"

    def loss(self, model: TrainableLotus2, batch: Batch) -> Tensor:
        """The loss, a scalar."""
        image, truth = encode(model, batch)
        return mean_square(self.error(model, batch.task, image, truth, batch.generator()), model, batch)

    def error(
        self, model: TrainableLotus2, task: str, image: Tensor, truth: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The error that is squared, (B, C, h, w), from latents of the same shape."""
        raise NotImplementedError

    def predict(self, model: TrainableLotus2, image: Tensor, task: str, generator: torch.Generator) -> Tensor:
        """The annotation latent (B, C, h, w) of an image's."""
        raise NotImplementedError


class _Flow(Lotus2Objective):
    """A flow that is followed in `steps` Euler steps.

    time_steps: T'; training draws t from the T' values k / T', of which the Euler steps are a part. None: t is drawn
    from all of [0, 1].
    """

    steps: int = Field(ge=1)
    time_steps: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.time_steps is not None and self.time_steps % self.steps:
            raise ValueError(f"expected time_steps to be a multiple of steps, {self.steps}, got {self.time_steps}")
        return self


class StochasticFlow(_Flow):
    """Direct adaptation of the generator: a flow from noise to the annotation, given the image.

    z_t = t e + (1 - t) z_y with e ~ N(0, 1), minimize |v(z_t, z_x, t) - (e - z_y)|^2 (eq. 9-10). The image latent
    is concatenated to z_t, so the network has twice as many input channels.
    """

    kind: Literal["stochastic_flow"]

    def error(
        self, model: TrainableLotus2, task: str, image: Tensor, truth: Tensor, generator: torch.Generator
    ) -> Tensor:
        noise = torch.randn(truth.shape, generator=generator).to(truth)
        time = draw_times(truth, generator, self.time_steps)
        between = torch.lerp(truth, noise, time)
        return at(model, torch.cat((between, image), dim=1), task, time) - (noise - truth)

    def predict(self, model: TrainableLotus2, image: Tensor, task: str, generator: torch.Generator) -> Tensor:
        latent = torch.randn(model.without_features(image).shape, generator=generator).to(image)
        return euler(lambda z, time: at(model, torch.cat((z, image), dim=1), task, time), latent, self.steps)


class DeterministicFlow(_Flow):
    """A flow from the image itself to its annotation.

    z_t = t z_x + (1 - t) z_y, minimize |v(z_t, t) - (z_x - z_y)|^2 (eq. 11-12).
    """

    kind: Literal["deterministic_flow"]

    def error(
        self, model: TrainableLotus2, task: str, image: Tensor, truth: Tensor, generator: torch.Generator
    ) -> Tensor:
        time, start = draw_times(truth, generator, self.time_steps), model.without_features(image)
        between = model.carry_features(torch.lerp(truth, start, time), image)
        return at(model, between, task, time) - (start - truth)

    def predict(self, model: TrainableLotus2, image: Tensor, task: str, generator: torch.Generator) -> Tensor:
        def velocity(latent: Tensor, time: Tensor) -> Tensor:
            return at(model, model.carry_features(latent, image), task, time)

        return euler(velocity, model.without_features(image), self.steps)


def draw_times(latent: Tensor, generator: torch.Generator, count: int | None = None) -> Tensor:
    """Uniform in [0, 1], or of the `count` values 1 / count, 2 / count, ..., 1; (B, 1, 1, 1)."""
    shape = (len(latent), 1, 1, 1)
    if count is None:
        return torch.rand(shape, generator=generator).to(latent)
    return (torch.randint(1, count + 1, shape, generator=generator) / count).to(latent)


def at(model: TrainableLotus2, latent: Tensor, task: str, time: Tensor) -> Tensor:
    """The core's adapter at a time (B, 1, 1, 1), or any that flattens to 1 or B."""
    return model.transform(latent, CORE, task, time.flatten() * model.scheduler.num_train_timesteps)


def euler(velocity: Callable[[Tensor, Tensor], Tensor], latent: Tensor, steps: int) -> Tensor:
    """From t = 1 to 0 in equal steps, float32 between them; `velocity` of the latent and the time."""
    times = torch.linspace(1, 0, steps + 1, device=latent.device)
    sharp = latent.float()
    for time, following in pairwise(times):
        sharp = sharp + (following - time) * velocity(sharp.to(latent.dtype), time).float()
    return sharp.to(latent.dtype)
