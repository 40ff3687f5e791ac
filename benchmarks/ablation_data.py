"""Views that are encoded once. VAE and backbone are frozen, and at this size they would take most of a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from lotus2_ros.training.augment import degrade, jitter
from lotus2_ros.training.batches import Batch, resize
from lotus2_ros.training.rendered import RenderedGroup

PART = 50  # views that are encoded at a time


@dataclass(frozen=True)
class EncodedGroup:
    """Views of one size. image: (N, C + M, h, w), latents of the images and behind them the M channels of the
    backbone's maps; annotation: (N, C, h, w), latents of the disparities; weight: see `Group`."""

    weight: float
    image: Tensor
    annotation: Tensor

    def every(self, number: int) -> EncodedGroup:
        """Every `number`-th of the views."""
        return EncodedGroup(self.weight, self.image[::number], self.annotation[::number])


@torch.no_grad()
def encode_once(model: Any, group: RenderedGroup, size: float, multiple: int) -> EncodedGroup:
    """The views of a group at `size`, every second one mirrored, each with one draw of the usual degradations."""
    generator = torch.Generator().manual_seed(0)
    images, annotations = [], []
    for part in torch.arange(len(group)).split(PART):
        image, annotation, *_ = group.read(part.tolist(), "depth")
        sides = [int(side * size) // multiple * multiple for side in image.shape[2:]]
        image, annotation = (resize(values, sides) for values in (image, annotation))
        image[::2], annotation[::2] = image[::2].flip(-1), annotation[::2].flip(-1)
        image = degrade(jitter(image, generator), generator)
        latent = model.encode_annotation(image)
        maps = [F.pixel_shuffle(model.prior.look(image), model.prior.patch)] if model.prior else []
        images.append(torch.cat((latent, *maps), dim=1))
        annotations.append(model.encode_annotation(annotation))
    return EncodedGroup(group.weight, torch.cat(images), torch.cat(annotations))


class EncodedBatches(Dataset[Batch]):
    """As `Batches`, for a model that is `given_latents`."""

    def __init__(self, groups: Sequence[EncodedGroup], batch: int, factor: int, seed: int) -> None:
        self.groups, self.batch, self.factor, self.seed = groups, batch, factor, seed
        self.weights = torch.tensor([group.weight for group in groups])

    def __getitem__(self, number: int) -> Batch:
        generator = torch.Generator().manual_seed(hash((self.seed, number)) % 2**63)
        group = self.groups[int(torch.multinomial(self.weights, 1, generator=generator))]
        chosen = torch.randint(len(group.image), (self.batch,), generator=generator)
        image, annotation = group.image[chosen], group.annotation[chosen]
        annotation = F.pad(annotation, (0, 0, 0, 0, 0, image.shape[1] - annotation.shape[1]))  # encoded with the image
        sides = [side * self.factor for side in image.shape[2:]]
        valid = torch.ones(self.batch, 1, *sides, dtype=torch.bool)
        seed = int(torch.randint(2**62, (), generator=generator))
        return Batch("depth", image, annotation, valid, torch.zeros(self.batch), seed)


@contextmanager
def given_latents(model: Any) -> Iterator[None]:
    """Within this context the model takes what is in an `EncodedGroup` in place of images."""
    channels = model.vae.config.latent_channels
    model.encode_annotation = lambda given: given[:, :channels]
    if model.prior:
        model.prior.look = lambda given: F.pixel_unshuffle(given[:, channels:], model.prior.patch)
    try:
        yield
    finally:
        del model.encode_annotation
        if model.prior:
            del model.prior.look
