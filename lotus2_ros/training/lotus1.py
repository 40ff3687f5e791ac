"""Lotus-D and Lotus-G as they are trained, and small ones from nothing."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from lotus2_ros.model.lotus1 import ANNOTATION, RECONSTRUCTION, Lotus1
from lotus2_ros.training.batches import Batch
from lotus2_ros.training.latents import Part, encode, mean_square


class Lotus1Step(BaseModel):
    """One pass at t = 999 to the annotation: minimise |f(z_x, s_y) - z_y|^2, of G with noise beside z_x.

    With `reconstruction`, the detail preserver, also |f(z_x, s_x) - z_x|^2, where s is the task switcher, so that the
    network keeps what the image's details are made of (arXiv 2409.18124).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["lotus1"]
    reconstruction: bool

    def part(self) -> Part:
        return "core"

    def loss(self, model: Lotus1, batch: Batch) -> Tensor:
        image, truth = encode(model, batch)
        given = _with_noise(model, image, batch.generator())
        loss = mean_square(model.transform(given, batch.task, ANNOTATION) - truth, model, batch)
        if self.reconstruction:
            loss = loss + (model.transform(given, batch.task, RECONSTRUCTION) - image).float().square().mean()
        return loss

    def predict(self, model: Lotus1, image: Tensor, task: str, generator: torch.Generator) -> Tensor:
        """The annotation latent (B, C, h, w) of an image latent of the same shape."""
        return model.transform(_with_noise(model, image, generator), task, ANNOTATION)


def _with_noise(model: Lotus1, image: Tensor, generator: torch.Generator) -> Tensor:
    if not model.generative:
        return image
    return torch.cat((image, torch.randn(image.shape, generator=generator).to(image)), dim=1)
