"""Batches by number: batch N of a run is always the same, whoever makes it and whatever was made before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from lotus2_ros.data.annotation import mirror, renormalize

MIRRORED = 0.5
FILTER_SIZES = (1, 3, 5)  # pixels


@dataclass(frozen=True)
class Batch:
    """image (B, 3, H, W) and annotation of `task` (B, 3, H, W) in [-1, 1], valid (B, 1, H, W) bool; sides are
    multiples of what the model needs; shift (B,) of a depth's annotation, see `disparity_annotation`; `seed` is for
    whatever else the step draws."""

    task: str
    image: Tensor
    annotation: Tensor
    valid: Tensor
    shift: Tensor
    seed: int

    def to(self, device: torch.device) -> Batch:
        moved = {name: getattr(self, name).to(device) for name in ("image", "annotation", "valid", "shift")}
        return replace(self, **moved)

    def generator(self) -> torch.Generator:
        """On the CPU, so that a run on another device draws the same numbers."""
        return torch.Generator().manual_seed(self.seed)


class Group(Protocol):
    """Views of one size; `weight`: how often a batch comes from here, beside the other groups."""

    @property
    def weight(self) -> float: ...

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int], task: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """image (B, 3, H, W) and annotation (B, 3, H, W) in [-1, 1], valid (B, 1, H, W), shift (B,) if a depth's."""
        ...


class Batches(Dataset[Batch]):
    """All batches of one stage. `size`: of the images, a part of their own; `crop`: the smallest part of their sides
    that is looked at, brought to that size; `filtered`: the share of images that are mixed with what a random filter
    makes of them; `tasks` in turn; `rank` of the process."""

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
        # Hashed, so that neighbouring numbers and seeds share nothing.
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
            image = jitter(image, generator)
        if self.random_convolution:
            image = mix_convolved(image, self.random_convolution, generator)
        return Batch(task, image, annotation, valid, shift, int(torch.randint(2**62, (), generator=generator)))


def window(sides: Sequence[int], smallest: float, generator: torch.Generator) -> tuple[slice, slice]:
    """Rows and columns of a part of an image of `sides` (H, W), of its shape and of `smallest` to all of its sides."""
    part = smallest + (1 - smallest) * float(torch.rand((), generator=generator))
    lengths = [round(side * part) for side in sides]
    starts = [int(torch.randint(side - n + 1, (), generator=generator)) for side, n in zip(sides, lengths, strict=True)]
    rows, columns = (slice(start, start + n) for start, n in zip(starts, lengths, strict=True))
    return rows, columns


def resize(values: Tensor, sides: Sequence[int]) -> Tensor:
    """(B, C, H, W) to (B, C, *sides): means where it shrinks, linear where it grows."""
    if sides[0] > values.shape[2]:
        return F.interpolate(values, tuple(sides), mode="bilinear", align_corners=False)
    return F.interpolate(values, tuple(sides), mode="area")


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, H, W) in [-1, 1] with other brightness, contrast, white balance, saturation and noise."""

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return low + (high - low) * torch.rand(len(images), channels, 1, 1, generator=generator)

    values = (images * 0.5 + 0.5).clamp_min(1e-3) ** draw(0.6, 1.6) * draw(0.6, 1.2) * draw(0.85, 1.15, 3)
    grey = values.mean(1, keepdim=True)
    values = torch.lerp(grey, values, draw(0.1, 1.3)) + draw(0, 0.02) * torch.randn(values.shape, generator=generator)
    return values.clamp(0, 1) * 2 - 1


def mix_convolved(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """(B, 3, H, W) in [-1, 1], a `share` of them mixed with themselves under a random filter of three colours.

    Shapes stay and colours and fine texture change, which in rendered images are not those of a camera (random
    convolutions, arXiv 2007.13003).
    """
    count, channels = images.shape[:2]
    size = FILTER_SIZES[int(torch.randint(len(FILTER_SIZES), (), generator=generator))]
    filters = torch.randn(count * channels, channels, size, size, generator=generator) / (channels * size**2) ** 0.5
    padded = F.pad(images, [size // 2] * 4, mode="reflect")
    filtered = F.conv2d(padded.flatten(0, 1)[None], filters, groups=count)[0].unflatten(0, (count, channels))
    chosen = torch.rand(count, 1, 1, 1, generator=generator) < share
    part = torch.where(chosen, torch.rand(count, 1, 1, 1, generator=generator), 0.0)
    return torch.lerp(images, filtered, part).clamp(-1, 1)
