"""The training objectives of Lotus-D and Lotus-G."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from lotus2_ros.model.lotus.lotus import ANNOTATION, RECONSTRUCTION, TIMESTEP, Lotus
from lotus2_ros.model.trainable import TrainedPart
from lotus2_ros.training.batches import Batch
from lotus2_ros.training.decoded import CoreEndToEndLoss
from lotus2_ros.training.latents import encode, mean_square


class LotusObjective(BaseModel):
    """One pass at t = 999 to the annotation: minimize |f(z_x, s_y) - z_y|^2; Lotus-G also gets noise beside z_x.

    With `reconstruction`, the detail preserver, also minimize |f(z_x, s_x) - z_x|^2, where s is the task switcher, so
    that the network keeps the details of the image (arXiv 2409.18124).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reconstruction: bool

    def part(self) -> TrainedPart:
        return "core"

    def loss(self, model: Lotus, batch: Batch) -> Tensor:
        image, truth = encode(model, batch)
        given = _with_noise(model, image, batch.generator())
        loss = self.of_prediction(model, model.transform(given, batch.task, ANNOTATION), truth, batch)
        return loss + reconstruction_loss(model, given, batch.task) if self.reconstruction else loss

    def of_prediction(self, model: Lotus, predicted: Tensor, truth: Tensor, batch: Batch) -> Tensor:
        """The loss of the annotation's latent."""
        return mean_square(predicted - truth, model, batch)

    def predict(self, model: Lotus, image: Tensor, task: str, generator: torch.Generator) -> Tensor:
        """The annotation latent (B, C, h, w) of an image latent (B, C + F, h, w)."""
        return model.transform(_with_noise(model, image, generator), task, ANNOTATION)


class LotusStep(LotusObjective):
    """The loss on latents alone."""

    kind: Literal["lotus"]


class LotusEndToEnd(CoreEndToEndLoss, LotusObjective):
    """With the loss on the decoded annotation, see :class:`EndToEndLoss`."""

    kind: Literal["lotus_end_to_end"]


def reconstruction_loss(model: Lotus, given: Tensor, task: str, timestep: int | Tensor = TIMESTEP) -> Tensor:
    """The detail preserver: the squared error of the image's latent, which `given` (B, C + ..., h, w) begins with."""
    reconstructed = model.transform(given, task, RECONSTRUCTION, timestep)
    return (reconstructed - model.without_features(given)).float().square().mean()


def _with_noise(model: Lotus, image: Tensor, generator: torch.Generator) -> Tensor:
    if not model.generative:
        return image
    noise = torch.randn(model.without_features(image).shape, generator=generator)
    return torch.cat((image, noise.to(image)), dim=1)
