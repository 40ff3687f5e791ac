"""The training objectives of Lotus-2. x is the image, y its annotation, z their latents, t in [0, 1].

All of them predict an annotation latent. They are the rows of the ablation in arXiv 2512.01030, table III.
Each loss is a mean over the latent pixels whose image pixels are all valid.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from lotus2_ros.model.lotus2.base import CORE, CORE_TIMESTEP
from lotus2_ros.model.lotus2.trainable import TrainableLotus2
from lotus2_ros.model.trainable import TrainedPart
from lotus2_ros.training.batches import Batch
from lotus2_ros.training.decoded import EndToEndLoss
from lotus2_ros.training.latents import encode, mean_square
from lotus2_ros.training.lotus import LotusEndToEnd, LotusStep


class _Objective(BaseModel):
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


class StochasticFlow(_Objective):
    """Direct adaptation of the generator: a flow from noise to the annotation, given the image.

    z_t = t e + (1 - t) z_y with e ~ N(0, 1), minimize |v(z_t, z_x, t) - (e - z_y)|^2 (eq. 9-10). The image latent
    is concatenated to z_t, so the network has twice as many input channels.
    """

    kind: Literal["stochastic_flow"]
    steps: int = Field(ge=1)

    def error(
        self, model: TrainableLotus2, task: str, image: Tensor, truth: Tensor, generator: torch.Generator
    ) -> Tensor:
        noise = torch.randn(truth.shape, generator=generator).to(truth)
        time = _times(truth, generator)
        between = torch.lerp(truth, noise, time)
        return _at(model, torch.cat((between, image), dim=1), task, time) - (noise - truth)

    def predict(self, model: TrainableLotus2, image: Tensor, task: str, generator: torch.Generator) -> Tensor:
        latent = torch.randn(model.without_features(image).shape, generator=generator).to(image)
        return _euler(lambda z, time: _at(model, torch.cat((z, image), dim=1), task, time), latent, self.steps)


class DeterministicFlow(_Objective):
    """A flow from the image itself to its annotation.

    z_t = t z_x + (1 - t) z_y, minimize |v(z_t, t) - (z_x - z_y)|^2 (eq. 11-12).
    """

    kind: Literal["deterministic_flow"]
    steps: int = Field(ge=1)

    def error(
        self, model: TrainableLotus2, task: str, image: Tensor, truth: Tensor, generator: torch.Generator
    ) -> Tensor:
        time, start = _times(truth, generator), model.without_features(image)
        between = model.carry_features(torch.lerp(truth, start, time), image)
        return _at(model, between, task, time) - (start - truth)

    def predict(self, model: TrainableLotus2, image: Tensor, task: str, generator: torch.Generator) -> Tensor:
        def velocity(latent: Tensor, time: Tensor) -> Tensor:
            return _at(model, model.carry_features(latent, image), task, time)

        return _euler(velocity, model.without_features(image), self.steps)


class _OnePass(_Objective):
    """One pass at t = 1. Residual: z_y = z_x - f(z_x, 1) (eq. 13); clean data: z_y = f(z_x, 1) (eq. 15).

    With `continuity` z_y then goes through the local continuity module (eq. 14), as in the released model.
    """

    prediction: Literal["clean", "residual"]
    continuity: bool

    def predict(self, model: TrainableLotus2, image: Tensor, task: str, generator: torch.Generator) -> Tensor:
        predicted = model.transform(image, CORE, task, CORE_TIMESTEP)
        if self.prediction == "residual":
            predicted = model.without_features(image) - predicted
        return model.continuity[task](predicted) if self.continuity else predicted


class SingleStep(_OnePass):
    """The core predictor: minimize the squared error of z_y."""

    kind: Literal["single_step"]

    def error(
        self, model: TrainableLotus2, task: str, image: Tensor, truth: Tensor, generator: torch.Generator
    ) -> Tensor:
        return self.predict(model, image, task, generator) - truth


class EndToEnd(EndToEndLoss, _OnePass):
    """The core predictor with the loss on the decoded annotation, see :class:`EndToEndLoss`."""

    kind: Literal["end_to_end"]

    def loss(self, model: TrainableLotus2, batch: Batch) -> Tensor:
        image, truth = encode(model, batch)
        return self.of_prediction(model, self.predict(model, image, batch.task, batch.generator()), truth, batch)


class _FromCoarse(_Objective):
    """The detail sharpener: a flow from the prediction z_c of the trained core to the annotation.

    z_t = t z_c + (1 - t) z_y, minimize |v(z_t, t) - (z_c - z_y)|^2 (eq. 16-17).
    """

    def part(self) -> TrainedPart:
        return "sharpener"

    def error(
        self, model: TrainableLotus2, task: str, image: Tensor, truth: Tensor, generator: torch.Generator
    ) -> Tensor:
        coarse = self._coarse(model, image, task).to(truth)
        time = _times(truth, generator)
        between = model.carry_features(torch.lerp(truth, coarse, time), image)
        return model.velocity(between, task, time.flatten()) - (coarse - truth)

    @torch.no_grad()
    def _coarse(self, model: TrainableLotus2, image: Tensor, task: str) -> Tensor:
        return model.without_features(model.core(image, task))

    def predict(self, model: TrainableLotus2, image: Tensor, task: str, generator: torch.Generator) -> Tensor:
        return model.sharpen(model.core(image, task), task).result()


class Sharpener(_FromCoarse):
    """The squared error of the velocity."""

    kind: Literal["sharpener"]


class SharpenerEndToEnd(EndToEndLoss, _FromCoarse):
    """The detail sharpener with the loss on the decoded end of its flow, z_t - t v, see :class:`EndToEndLoss`.

    first_step: share of the views with t = 1, where a sharpener of few steps does most of its work.
    """

    kind: Literal["sharpener_end_to_end"]
    first_step: float = Field(default=0.5, ge=0, le=1)

    def part(self) -> TrainedPart:
        return "sharpener"

    def loss(self, model: TrainableLotus2, batch: Batch) -> Tensor:
        image, truth = encode(model, batch)
        coarse, generator = self._coarse(model, image, batch.task).to(truth), batch.generator()
        time = _times(truth, generator)
        time = torch.where(_times(truth, generator) < self.first_step, 1.0, time)
        between = torch.lerp(truth, coarse, time)
        velocity = model.velocity(model.carry_features(between, image), batch.task, time.flatten())
        return self.of_prediction(model, between - time * velocity, truth, batch)


class Autoencoder(_Objective):
    """The VAE, on square crops of images and annotations alike: L1 + .5 gradient + .5 MSE.

    noise: standard deviation of the noise on the latent, instead of a sample of the posterior, so that similar latents
    decode to similar images. The posterior's deviation is kept close to it.
    """

    kind: Literal["autoencoder"]
    crop: int = Field(ge=8)
    noise: float = Field(gt=0)

    def part(self) -> TrainedPart:
        return "vae"

    def loss(self, model: TrainableLotus2, batch: Batch) -> Tensor:
        generator = batch.generator()
        truth = torch.cat([self._crop(values, generator) for values in (batch.image, batch.annotation)])
        posterior = model.vae.encode(truth)
        noise = self.noise * torch.randn(posterior.mean.shape, generator=generator).to(truth)
        error = model.vae.decode(posterior.mean + noise) - truth
        gradient = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        spread = (posterior.logvar / 2 - torch.tensor(self.noise).log()).square().mean()
        size = posterior.mean.square().mean()
        return error.abs().mean() + 0.5 * gradient + 0.5 * error.square().mean() + 1e-3 * size + 1e-2 * spread

    def predict(self, model: TrainableLotus2, image: Tensor, task: str, generator: torch.Generator) -> Tensor:
        return image

    def _crop(self, values: Tensor, generator: torch.Generator) -> Tensor:
        sides = [min(self.crop, side) for side in values.shape[2:]]
        y, x = (
            int(torch.randint(length - side + 1, (), generator=generator))
            for length, side in zip(values.shape[2:], sides, strict=True)
        )
        crop = values[:, :, y : y + sides[0], x : x + sides[1]]
        return crop.contiguous(memory_format=torch.channels_last)


_OfLotus2 = StochasticFlow | DeterministicFlow | SingleStep | Sharpener | Autoencoder | EndToEnd
Objective = _OfLotus2 | LotusStep | LotusEndToEnd | SharpenerEndToEnd


def _times(latent: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform in [0, 1], (B, 1, 1, 1)."""
    return torch.rand(len(latent), 1, 1, 1, generator=generator).to(latent)


def _at(model: TrainableLotus2, latent: Tensor, task: str, time: Tensor) -> Tensor:
    """The core's adapter at a time (B, 1, 1, 1), or any that flattens to 1 or B."""
    return model.transform(latent, CORE, task, time.flatten() * model.scheduler.num_train_timesteps)


def _euler(velocity, latent: Tensor, steps: int) -> Tensor:
    """From t = 1 to 0 in equal steps, float32 between them."""
    times = torch.linspace(1, 0, steps + 1, device=latent.device)
    sharp = latent.float()
    for time, following in pairwise(times):
        sharp = sharp + (following - time) * velocity(sharp.to(latent.dtype), time).float()
    return sharp.to(latent.dtype)
