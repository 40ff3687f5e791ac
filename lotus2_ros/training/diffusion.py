"""The diffusion that Lotus starts from: noise to annotation in many steps, by predicting the noise or the annotation.

Lotus-G is what is left of it with the clean prediction and one time-step (arXiv 2409.18124).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from typing_extensions import Self

from lotus2_ros.model.lotus.lotus import ANNOTATION, Lotus
from lotus2_ros.model.trainable import TrainedPart
from lotus2_ros.training.batches import Batch
from lotus2_ros.training.latents import encode, mean_square
from lotus2_ros.training.lotus import reconstruction_loss

# Stable Diffusion's: the square root of the noise that each of T steps adds grows linearly.
STEPS, FIRST, LAST = 1000, 0.00085, 0.012


class Diffusion(BaseModel):
    """z_t = sqrt(a_t) z_y + sqrt(1 - a_t) e with e ~ N(0, 1), given z_x and t. Minimize |f(z_t, z_x, t) - e|^2 with
    the prediction `noise` (eq. 1), |f(z_t, z_x, t) - z_y|^2 with `clean` (eq. 2).

    time_steps: T'; training draws t from a uniform sub-sequence of T' of the T = 1000 time-steps, which ends with T.
    steps: of DDIM (arXiv 2010.02502) without noise, at a uniform sub-sequence of those. reconstruction: the detail
    preserver, see `LotusObjective`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["diffusion"]
    prediction: Literal["noise", "clean"]
    time_steps: int = Field(ge=1)
    steps: int = Field(ge=1)
    reconstruction: bool

    @model_validator(mode="after")
    def _check(self) -> Self:
        if STEPS % self.time_steps or self.time_steps % self.steps:
            raise ValueError(
                f"expected time_steps that divide {STEPS} and steps that divide them, got {self.time_steps} and "
                f"{self.steps}"
            )
        return self

    def part(self) -> TrainedPart:
        return "core"

    def loss(self, model: Lotus, batch: Batch) -> Tensor:
        """The loss, a scalar."""
        image, truth = encode(model, batch)
        generator = batch.generator()
        noise = torch.randn(truth.shape, generator=generator).to(truth)
        time = subsequence(self.time_steps)[torch.randint(self.time_steps, (len(truth),), generator=generator)]
        signal, spread = (each.to(truth)[:, None, None, None] for each in scales(time))
        given, time = torch.cat((image, signal * truth + spread * noise), dim=1), time.to(truth.device)
        predicted = model.transform(given, batch.task, ANNOTATION, time)
        loss = mean_square(predicted - (noise if self.prediction == "noise" else truth), model, batch)
        return loss + reconstruction_loss(model, given, batch.task, time) if self.reconstruction else loss

    def predict(self, model: Lotus, image: Tensor, task: str, generator: torch.Generator) -> Tensor:
        """The annotation latent (B, C, h, w) of an image latent (B, C + F, h, w)."""
        *_, last = self.estimates(model, image, task, generator)
        return last

    def estimates(self, model: Lotus, image: Tensor, task: str, generator: torch.Generator) -> Iterator[Tensor]:
        """The estimate of the annotation latent (B, C, h, w) by each step of DDIM, in order."""
        noisy = torch.randn(model.without_features(image).shape, generator=generator).to(image)
        times = subsequence(self.steps).flip(0).tolist()
        levels = [scales(torch.tensor(time)) for time in times] + [(torch.tensor(1.0), torch.tensor(0.0))]
        for time, ((signal, spread), (next_signal, next_spread)) in zip(times, pairwise(levels), strict=True):
            predicted = model.transform(torch.cat((image, noisy), dim=1), task, ANNOTATION, time)
            if self.prediction == "noise":
                noise, clean = predicted, (noisy - spread * predicted) / signal
            else:
                noise, clean = (noisy - signal * predicted) / spread, predicted
            yield clean
            noisy = next_signal * clean + next_spread * noise


def subsequence(count: int) -> Tensor:
    """`count` time-steps of 0 ... T - 1 at equal distances, the last of which is T - 1."""
    return torch.arange(1, count + 1) * (STEPS // count) - 1


def scales(time: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(a_t) and sqrt(1 - a_t), the scales of annotation and noise at time-steps 0 ... T - 1."""
    added = torch.linspace(FIRST**0.5, LAST**0.5, STEPS) ** 2
    left = (1 - added).cumprod(0)[time]
    return left.sqrt(), (1 - left).sqrt()
