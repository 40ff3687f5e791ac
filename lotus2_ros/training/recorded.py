"""Hypersim and Virtual KITTI 2 as training data, read on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lotus2_ros.data.annotation import disparity_annotation, normals_annotation
from lotus2_ros.data.hypersim import Hypersim
from lotus2_ros.data.reader import Reader
from lotus2_ros.data.sample import Sample
from lotus2_ros.data.virtual_kitti import VirtualKITTI2
from lotus2_ros.training.batches import Group
from lotus2_ros.training.config import RecordedConfig

READERS = {"hypersim": Hypersim, "virtual_kitti": VirtualKITTI2}


@dataclass(frozen=True)
class RecordedGroup:
    """A data set, resized to one `size` (height, width)."""

    weight: float
    reader: Reader
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.reader)

    def read(self, indices: Sequence[int], task: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        views = [self._view(self.reader[index], task) for index in indices]
        image, annotation, valid, shift = (torch.stack(parts) for parts in zip(*views, strict=True))
        return image, annotation, valid[:, None], shift

    def _view(self, sample: Sample, task: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The sky counts in depth and has no normal, as in the public training of Lotus (arXiv 2409.18124)."""
        image = sample.image.permute(2, 0, 1)[None].float()
        image = F.interpolate(image, self.size, mode="bilinear", antialias=True)[0]
        if task == "normals":
            annotation, valid = normals_annotation(self._nearest(sample, "normals").permute(1, 2, 0))
            shift = torch.zeros(())
        else:
            annotation, valid, shift = disparity_annotation(self._nearest(sample, "depth")[0], sky_in_range=False)
        return image / 127.5 - 1, annotation, valid, shift

    def _nearest(self, sample: Sample, kind: str) -> Tensor:
        """(C, H, W), resized to nearest, so that no value is a mixture across an edge."""
        truth: Tensor | None = getattr(sample, kind)
        if truth is None or not truth.isfinite().any():
            raise ValueError(f"{sample.name}: expected {kind} in some pixels, got none")
        channels = truth.reshape(1, *truth.shape[:2], -1).permute(0, 3, 1, 2)
        return F.interpolate(channels, self.size, mode="nearest-exact")[0]


def load(config: RecordedConfig) -> list[Group]:
    """A group for each set. Raises FileNotFoundError or ValueError for folders that do not hold the data set."""
    return [RecordedGroup(entry.weight, READERS[entry.name](entry.folder), entry.size) for entry in config.sets]
