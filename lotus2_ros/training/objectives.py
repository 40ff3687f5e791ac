"""The training objectives of Lotus-2. x is the image, y its annotation, z their latents, t in [0, 1].

All of them predict an annotation latent. They are the rows of the ablation in arXiv 2512.01030, table III.
Each loss is a mean over the latent pixels whose image pixels are all valid.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from lotus2_ros.model.lotus2.base import CORE, CORE_TIMESTEP
from lotus2_ros.model.lotus2.trainable import TrainableLotus2
from lotus2_ros.model.trainable import TrainedPart
from lotus2_ros.training.batches import Batch
from lotus2_ros.training.decoded import SKY, CoreEndToEndLoss, EndToEndLoss, disparity_error
from lotus2_ros.training.diffusion import Diffusion
from lotus2_ros.training.flows import DeterministicFlow, Lotus2Objective, StochasticFlow, draw_times
from lotus2_ros.training.latents import encode
from lotus2_ros.training.lotus import LotusEndToEnd, LotusStep


class _OnePass(Lotus2Objective):
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


class EndToEnd(CoreEndToEndLoss, _OnePass):
    """The core predictor with the loss on the decoded annotation, see :class:`EndToEndLoss`."""

    kind: Literal["end_to_end"]

    def loss(self, model: TrainableLotus2, batch: Batch) -> Tensor:
        image, truth = encode(model, batch)
        return self.of_prediction(model, self.predict(model, image, batch.task, batch.generator()), truth, batch)


class _FromCoarse(Lotus2Objective):
    """The detail sharpener: a flow from the prediction z_c of the trained core to the annotation.

    z_t = t z_c + (1 - t) z_y, minimize |v(z_t, t) - (z_c - z_y)|^2 (eq. 16-17).
    """

    def part(self) -> TrainedPart:
        return "sharpener"

    def error(
        self, model: TrainableLotus2, task: str, image: Tensor, truth: Tensor, generator: torch.Generator
    ) -> Tensor:
        coarse = self._coarse(model, image, task).to(truth)
        time = draw_times(truth, generator)
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

    def loss(self, model: TrainableLotus2, batch: Batch) -> Tensor:
        image, truth = encode(model, batch)
        coarse, generator = self._coarse(model, image, batch.task).to(truth), batch.generator()
        time = draw_times(truth, generator)
        time = torch.where(draw_times(truth, generator) < self.first_step, 1.0, time)
        between = torch.lerp(truth, coarse, time)
        velocity = model.velocity(model.carry_features(between, image), batch.task, time.flatten())
        return self.of_prediction(model, between - time * velocity, truth, batch)


class Uncertainty(Lotus2Objective):
    """The uncertainty head on the trained core: how large the errors of its disparity are.

    The negative log likelihood of the errors under a Laplace distribution, whose scale the head predicts for each pixel
    (Kendall and Gal, arXiv 1703.04977).
    """

    kind: Literal["uncertainty"]

    def part(self) -> TrainedPart:
        return "uncertainty"

    def loss(self, model: TrainableLotus2, batch: Batch) -> Tensor:
        assert model.uncertainty is not None  # the network builds it for this objective
        disparity = batch.annotation[:, :1] * 0.5 + 0.5
        known = (batch.valid & (disparity + batch.shift[:, None, None, None] > SKY)).float()
        with torch.no_grad():
            latent = model.core(model.encode(batch.image), batch.task)
            error = disparity_error(model.decode(latent).mean(1, keepdim=True), disparity, known)
        log_scale = F.interpolate(model.uncertainty(latent).float(), error.shape[2:], mode="bilinear")
        return ((error * (-log_scale).exp() + log_scale) * known).sum() / known.sum().clamp_min(1)

    def predict(self, model: TrainableLotus2, image: Tensor, task: str, generator: torch.Generator) -> Tensor:
        return model.core(image, task)


class Autoencoder(Lotus2Objective):
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


_OfLotus2 = (
    StochasticFlow
    | DeterministicFlow
    | SingleStep
    | EndToEnd
    | Sharpener
    | SharpenerEndToEnd
    | Uncertainty
    | Autoencoder
)
Objective = _OfLotus2 | LotusStep | LotusEndToEnd | Diffusion
