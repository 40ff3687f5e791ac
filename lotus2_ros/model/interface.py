"""What a model is to all that runs it: images to latents, latents to annotation latents, those to annotations.

Nothing outside this package asks which family a model is of.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from lotus2_ros.model.cache import CachingModule
from lotus2_ros.model.euler import EulerSteps
from lotus2_ros.model.manifest import ModelSettings, Task


def run_eagerly(key: tuple, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """The plain way to run one of the network's functions; `GeometryModel.executor` may be another."""
    return function(*tensors)


class GeometryModel(CachingModule, ABC):
    """A VAE, settings and metadata; a subclass adds the network.

    `multiple`: sides of an image must be multiples of it. `upsampling`: the mode of `torch.nn.functional.interpolate`
    that brings annotations back to the image's size. `metadata`: name, licence and the other keys of the bundle.

    `executor(key, function, *tensors)` runs the encoder, a pass of the network or the decoder. Key and shapes determine
    all of the function's work, so an executor may record it once and replay it.
    """

    upsampling = "bilinear"

    def __init__(
        self,
        vae: AutoencoderKL,
        settings: ModelSettings,
        *,
        latent_multiple: int,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        super().__init__()
        self.vae = vae
        self.settings = settings
        self.vae_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.multiple = latent_multiple * self.vae_factor
        self.metadata = dict(metadata or {})
        self.executor: Callable[..., Tensor] = run_eagerly

    @property
    def tasks(self) -> tuple[Task, ...]:
        return self.settings.tasks

    @property
    def name(self) -> str:
        return str(self.metadata.get("name", "unnamed"))

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """What the network computes in."""

    @property
    def device(self) -> torch.device:
        return next(self.vae.parameters()).device

    @property
    def precision(self) -> str:
        """What the network's weights are held in."""
        return str(self.dtype).removeprefix("torch.")

    def dtype_of(self, dtype: torch.dtype) -> Callable[[str], torch.dtype | None]:
        """The dtype of each parameter, by name, when the model computes in `dtype`; None: as it is stored.

        Some VAEs overflow float16, which their config says with `force_upcast`.
        """
        vae = torch.float32 if dtype == torch.float16 and self.vae.config.force_upcast else dtype
        return lambda parameter: vae if parameter.startswith("vae.") else dtype

    def process_size(self, height: int, width: int, resolution: int) -> tuple[int, int]:
        """The size (height, width) at which an image is processed, for a longer side of `resolution` or, by area, the
        pixels of a 4:3 image of that longer side."""
        settings = self.settings
        return process_size(
            height, width, resolution, self.multiple, upscale=settings.upscale, by_area=settings.process_by_area
        )

    # Image <-> latent

    def encode(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """image (B, 3, H, W) in [-1, 1], sides multiples of `multiple` -> latent (B, C, H/f, W/f).

        The posterior's mode; with a generator a sample of it, as the reference implementations take.
        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"expected an image of shape (B, 3, H, W), got {tuple(image.shape)}")
        if any(side == 0 or side % self.multiple for side in image.shape[2:]):
            raise ValueError(f"expected sides that are multiples of {self.multiple}, got {tuple(image.shape[2:])}")
        if generator is None:
            return self.executor(("encode",), self._encode, image)
        return self._encode(image, generator)

    def _encode(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        posterior = self.vae.encode(image.to(self.vae.dtype)).latent_dist
        latent = posterior.mode() if generator is None else posterior.sample(generator)
        return ((latent - (self.vae.config.shift_factor or 0.0)) * self.vae.config.scaling_factor).to(self.dtype)

    def decode(self, latent: Tensor) -> Tensor:
        """latent (B, C, h, w) -> annotation (B, 3, h*f, w*f), float32 in [0, 1]."""
        return self.executor(("decode",), self._decode, latent)

    def _decode(self, latent: Tensor) -> Tensor:
        return self.decode_unclamped(latent).clamp(0.0, 1.0)

    def decode_unclamped(self, latent: Tensor) -> Tensor:
        """As :func:`decode`, but with what the decoder gives below 0 and above 1, of which training must know."""
        latent = latent / self.vae.config.scaling_factor + (self.vae.config.shift_factor or 0.0)
        decoded = self.vae.decode(latent.to(self.vae.dtype)).sample
        # float32 before the clamp: bfloat16 has about 384 values in [0, 1].
        return decoded.float() * 0.5 + 0.5

    # Latent -> latent

    @abstractmethod
    def predict(self, latent: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        """The core predictor of some tasks on one image: latent (1, C, h, w) -> annotation latents (N, C, h, w) by
        task; more than one are samples, of which the median is the answer."""

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
            raise ValueError(f"{self.name} has no task {task!r}; it has {', '.join(self.tasks)}")


class InferenceModel(GeometryModel):
    """A model in the form in which it runs, which `engine/runtime.py` can make fast.

    `batched`: several tasks of one image go through the network as one batch, where it can; on a GPU that is faster.
    """

    batched = False

    @property
    @abstractmethod
    def linear_precision(self) -> str:
        """How the weights of its linear layers are held and multiplied: one of `linear.PRECISIONS`."""

    @abstractmethod
    def compiled_parts(self) -> Mapping[nn.Module, bool]:
        """The modules worth compiling, and whether one compilation serves all image sizes (True) or each needs one."""

    @abstractmethod
    def on_meta(self, tasks: Sequence[str], precision: str = "float32", sharpeners: bool = True) -> InferenceModel:
        """The same network on the meta device, for some of its tasks, its linear layers in `precision`."""


class ImageSizeError(ValueError):
    """An image that is too small for the model."""


def process_size(
    height: int, width: int, resolution: int, multiple: int, *, upscale: bool = False, by_area: bool = False
) -> tuple[int, int]:
    """The size (height, width) at which an image is processed.

    The longer side is brought to `resolution` when it is above it, and with `upscale` also when it is below. Then the
    shorter side goes down to a multiple of `multiple`, and the longer side follows in proportion and goes down to a
    multiple too. With `by_area` the longer side is `resolution` of a 4:3 image, and one of another shape has as many
    pixels: what a wide camera sees is not made smaller than the time for a frame asks.
    """
    longer = max(height, width)
    if by_area:
        resolution = math.isqrt(resolution**2 * 3 * longer // (4 * max(1, min(height, width))))
    if longer > resolution or upscale:
        height, width = height * resolution // longer, width * resolution // longer
    shorter = min(height, width)
    fitted = shorter // multiple * multiple
    if fitted == 0:
        raise ImageSizeError(
            f"image too small: its shorter side is {shorter} px at processing size, needs {multiple} px"
        )
    return height * fitted // shorter // multiple * multiple, width * fitted // shorter // multiple * multiple
