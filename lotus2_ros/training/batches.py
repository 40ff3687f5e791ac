"""Batches by number: batch N of a run is always the same, independent of the process and of earlier batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from lotus2_ros.data.annotation import mirror, renormalize
from lotus2_ros.training.augment import degrade, jitter, mix_convolved

MIRRORED = 0.5
TENSORS = ("image", "annotation", "valid", "shift")


@dataclass(frozen=True)
class Batch:
    """Images and their annotations for one task.

    image (B, 3, H, W) and annotation (B, 3, H, W) in [-1, 1]; valid (B, 1, H, W) bool; the sides are multiples of
    `model.multiple`. shift (B,) of a depth annotation, see `disparity_annotation`. seed: for the step's random numbers.
    """

    task: str
    image: Tensor
    annotation: Tensor
    valid: Tensor
    shift: Tensor
    seed: int

    def first(self, count: int | None) -> Batch:
        """The first ``count`` views; all if None."""
        return replace(self, **{name: getattr(self, name)[:count] for name in TENSORS})

    def to(self, device: torch.device) -> Batch:
        return replace(self, **{name: getattr(self, name).to(device) for name in TENSORS})

    def generator(self) -> torch.Generator:
        """A generator on the CPU, so that a run on another device draws the same numbers."""
        return torch.Generator().manual_seed(self.seed)


class Group(Protocol):
    """Views of one size. weight: how often a batch comes from this group, relative to the others."""

    @property
    def weight(self) -> float: ...

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int], task: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """image (B, 3, H, W) and annotation (B, 3, H, W) in [-1, 1], valid (B, 1, H, W), shift (B,) if a depth's."""
        ...


class Batches(Dataset[Batch]):
    """All batches of one stage, for each of `tasks` in turn.

    size: scale of the images, relative to the views. crop: smallest side of the random crops that are resized to that
    size, relative to the views; 1: no crops. random_convolution: share of the images that are mixed with the output of
    a random convolution. rank: of the process.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        tasks: Sequence[str],
        batch: int,
        *,
        multiple: int,
        size: float = 1.0,
        crop: float = 1.0,
        random_convolution: float = 0.0,
        jitter: bool = True,
        seed: int = 0,
        rank: int = 0,
    ) -> None:
        if not groups or not all(len(group) for group in groups):
            raise ValueError("expected at least one view in each group of the training data, got none")
        self.groups, self.tasks, self.batch = groups, tasks, batch
        self.multiple, self.size, self.crop, self.jitter = multiple, size, crop, jitter
        self.random_convolution = random_convolution
        self.seed, self.rank = seed, rank
        self.weights = torch.tensor([float(group.weight) for group in groups])

    def __getitem__(self, number: int) -> Batch:
        # Hashed, so that neighboring numbers and seeds are independent.
        seed = hash((self.seed, self.rank, number)) % 2**63
        generator = torch.Generator().manual_seed(seed)
        task = self.tasks[number % len(self.tasks)]
        group = self.groups[int(torch.multinomial(self.weights, 1, generator=generator))]
        indices = torch.randint(len(group), (self.batch,), generator=generator).tolist()
        image, annotation, valid, shift = group.read(indices, task)
        sides = [int(side * self.size) // self.multiple * self.multiple for side in image.shape[2:]]
        if self.crop < 1:
            rows, columns = window(image.shape[2:], self.crop, generator)
            image, annotation, valid = (values[:, :, rows, columns] for values in (image, annotation, valid))
            if task == "depth":
                annotation, shift = renormalize(annotation, valid, shift)
        if sides != list(image.shape[2:]):
            image, annotation, valid = (resize(values, sides) for values in (image, annotation, valid.float()))
            valid = valid > 0.999
        if torch.rand((), generator=generator) < MIRRORED:
            image, annotation, valid = image.flip(-1), mirror(annotation, task), valid.flip(-1)
        if self.jitter:
            image = degrade(jitter(image, generator), generator)
        if self.random_convolution:
            image = mix_convolved(image, self.random_convolution, generator)
        return Batch(task, image, annotation, valid, shift, int(torch.randint(2**62, (), generator=generator)))


def window(sides: Sequence[int], smallest: float, generator: torch.Generator) -> tuple[slice, slice]:
    """Rows and columns of a random crop with the aspect ratio of an image (H, W), at least `smallest` of its sides."""
    part = smallest + (1 - smallest) * float(torch.rand((), generator=generator))
    lengths = [round(side * part) for side in sides]
    starts = [int(torch.randint(side - n + 1, (), generator=generator)) for side, n in zip(sides, lengths, strict=True)]
    rows, columns = (slice(start, start + n) for start, n in zip(starts, lengths, strict=True))
    return rows, columns


def resize(values: Tensor, sides: Sequence[int]) -> Tensor:
    """Resize (B, C, H, W) to (B, C, *sides): by area means to smaller sizes, bilinear to larger ones."""
    if sides[0] > values.shape[2]:
        return F.interpolate(values, tuple(sides), mode="bilinear", align_corners=False)
    return F.interpolate(values, tuple(sides), mode="area")
