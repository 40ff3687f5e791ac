"""The interface of all models: image -> latent -> annotation latent -> annotation.

Code outside this package uses this interface only and does not depend on the family of a model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lotus2_ros.model.euler import EulerSteps
from lotus2_ros.model.image_size import process_size
from lotus2_ros.model.manifest import ModelSettings, Task


class GeometryModel(ABC):
    """A model, for code outside this package.

    `multiple`: sides of an image must be multiples of it. `upsampling`: the mode of `torch.nn.functional.interpolate`
    that brings annotations back to the image's size. `metadata`: name, licence and the other keys of the bundle.
    """

    upsampling = "bilinear"
    settings: ModelSettings
    multiple: int
    metadata: dict[str, Any]

    @property
    def tasks(self) -> tuple[Task, ...]:
        return self.settings.tasks

    @property
    def name(self) -> str:
        return str(self.metadata.get("name", "unnamed"))

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Of latents and annotations."""

    @property
    @abstractmethod
    def precision(self) -> str:
        """Name of the number format of the network's weights."""

    def process_size(self, height: int, width: int, resolution: int) -> tuple[int, int]:
        """The size (height, width) at which an image is processed, see the function `process_size`."""
        settings = self.settings
        return process_size(
            height, width, resolution, self.multiple, upscale=settings.upscale, by_area=settings.process_by_area
        )

    @abstractmethod
    def encode(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """image (B, 3, H, W) in [-1, 1], sides multiples of `multiple` -> latent (B, C, H/f, W/f).

        The latent is the mode of the posterior, or with a generator a sample, as in the reference implementations.
        """

    @abstractmethod
    def predict(self, latent: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        """The core predictor: image latent (1, C, h, w) -> annotation latents (N, C, h, w) for each task.

        N is 1, or the number of samples of a generative model, whose result is their median.
        """

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """latent (B, C, h, w) -> annotation (B, 3, h*f, w*f), float32 in [0, 1]."""

    @property
    def has_uncertainty(self) -> bool:
        return False

    def predict_uncertainty(self, latent: Tensor) -> Tensor:
        """Annotation latent (B, C, h, w) of depth -> one standard deviation of the disparity (B, 1, h, w), float32."""
        raise ValueError(f"{self.name} does not predict its uncertainty")

    def has_sharpener(self, task: str) -> bool:
        return False

    def sharpen(self, latent: Tensor, task: str, steps: int | None = None) -> EulerSteps:
        """The detail sharpener's steps, none run yet, from the core predictor's latent (B, C, h, w) to the sharp one.

        ``steps`` defaults to ``sharpener_steps``. Raises ValueError where there is no sharpener for the task.
        """
        raise ValueError(f"{self.name} has no detail sharpener for {task}")

    def require_task(self, task: str) -> None:
        """Raise ValueError unless the model has this task."""
        if task not in self.tasks:
            raise ValueError(f"expected a task of {self.name} ({', '.join(self.tasks)}), got {task!r}")
