"""The common part of the readers of all data sets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from lotus2_ros.data.files import Files
from lotus2_ros.data.sample import Sample


class Reader(Sequence[Sample]):
    """One sample for each file that matches `pattern`, in the order of the paths, read on demand. `root` is a folder or
    an uncompressed tar. Raises FileNotFoundError, and ValueError for files with unexpected content."""

    pattern: str

    def __init__(self, root: Path) -> None:
        self.files = Files(root)
        self.names = self.files.glob(self.pattern)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        sample = self.read(self.names[index])
        for truth in (sample.depth, sample.normals):
            if truth is not None:
                require_one_size(self.files.root / self.names[index], sample.image, truth)
        return sample

    @abstractmethod
    def read(self, name: str) -> Sample:
        """The sample of the file `name`."""


def stem(name: str) -> str:
    """A file's path without its suffix: the name of a sample."""
    return str(PurePosixPath(name).with_suffix(""))


def within(depth: Tensor, limits: tuple[float, float]) -> Tensor:
    """The depth, with NaN outside the limits."""
    return torch.where((depth > limits[0]) & (depth < limits[1]), depth, torch.nan)


def require_one_size(where: Path, image: Tensor, truth: Tensor) -> None:
    """Raise ValueError unless the ground truth (H, W, ...) has the size of the image (H, W, ...)."""
    if image.shape[:2] != truth.shape[:2]:
        expected, got = ("{1} x {0}".format(*part.shape) for part in (image, truth))
        raise ValueError(f"{where}: expected truth of the image's size, {expected}, got {got}")


def benchmark_crop(where: Path, image: Tensor) -> tuple[slice, slice]:
    """Rows and columns of the bottom center that has the size of the KITTI benchmark's images. Raises ValueError."""
    height, width = image.shape[:2]
    crop_height, crop_width = 352, 1216
    if height < crop_height or width < crop_width:
        raise ValueError(f"{where}: expected at least {crop_width} x {crop_height} pixels, got {width} x {height}")
    left = (width - crop_width) // 2
    return slice(height - crop_height, height), slice(left, left + crop_width)
