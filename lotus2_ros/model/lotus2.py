"""Lotus-2: one FLUX transformer that turns the latent of an image into the latent of its disparity or normals.

The core predictor does it in one deterministic pass; the detail sharpener refines the result in a few Euler steps of a
rectified flow (arXiv 2512.01030). What is common to the form that is trained and released (`adapted.py`) and to the one
that runs (`folded.py`) is here: the VAE, the local continuity module, the sharpener's loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from lotus2_ros.model.continuity import LocalContinuity

CORE, SHARPENER = "core_predictor", "detail_sharpener"
CORE_TIMESTEP = 1.0


def adapter_name(stage: str, task: str) -> str:
    return f"{stage}_{task}"


def call(key: tuple, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """The plain way to run one of the network's functions; `Lotus2.launch` may be another."""
    return function(*tensors)


class Lotus2(nn.Module):
    """The network and what belongs to it, but for its transformer, which a subclass brings.

    `tasks` it can do; `multiple`: sides of an image must be multiples of it; `process_resolution`: the longer side it
    is meant for, at most; `antialias`: whether images are low-pass filtered when they are brought down to it;
    `sharpener_steps` by default; `sharpens`: whether a node sharpens without being asked for steps; `conditioning`: the
    dtype in which timestep and guidance are rounded; `metadata`: name, licence and whatever else its bundle tells.

    `launch(key, function, *tensors)` runs the encoder, a pass of the transformer or the decoder. Key and shapes say
    all that the function's work depends on, so that it may be recorded once and replayed.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        scheduler: FlowMatchEulerDiscreteScheduler,
        *,
        tasks: Sequence[str],
        process_resolution: int,
        antialias: bool = False,
        sharpener_steps: int = 10,
        sharpens: bool = True,
        conditioning: str = "bfloat16",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.vae, self.scheduler = vae, scheduler
        self.continuity = nn.ModuleDict({task: LocalContinuity(vae.config.latent_channels) for task in tasks})
        self.tasks = tuple(tasks)
        self.vae_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.multiple = 2 * self.vae_factor
        self.process_resolution = process_resolution
        self.antialias = antialias
        self.sharpener_steps = sharpener_steps
        self.sharpens = sharpens
        self.conditioning = conditioning
        self.metadata = dict(metadata or {})
        self.launch: Callable[..., Tensor] = call

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor's keyword arguments that made this model."""
        names = ("tasks", "process_resolution", "antialias", "sharpener_steps", "sharpens", "conditioning", "metadata")
        return {name: getattr(self, name) for name in names}

    @property
    def name(self) -> str:
        return str(self.metadata.get("name", "lotus-2"))

    @property
    def dtype(self) -> torch.dtype:
        """What the transformer computes in."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        return next(self.continuity.parameters()).device

    @property
    def precision(self) -> str:
        """What the transformer's weights are held in."""
        return str(self.dtype).removeprefix("torch.")

    def dtype_of(self, dtype: torch.dtype) -> Callable[[str], torch.dtype | None]:
        """The dtype of each parameter, by name, when the model computes in `dtype`; None: as it is stored.

        FLUX's VAE overflows float16, which its config says with `force_upcast`.
        """
        vae = torch.float32 if dtype == torch.float16 and self.vae.config.force_upcast else dtype
        return lambda parameter: vae if parameter.startswith("vae.") else dtype

    def has_sharpener(self, task: str) -> bool:
        raise NotImplementedError

    def require(self, stage: str, task: str) -> None:
        """Raise ValueError unless the model has this stage for this task."""
        if task not in self.tasks:
            raise ValueError(f"{self.name} has no task {task!r}; it has {', '.join(self.tasks)}")
        if stage == SHARPENER and not self.has_sharpener(task):
            raise ValueError(f"{self.name} has no {stage} for {task}")

    # Image <-> latent

    def encode(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """image (B, 3, H, W) in [-1, 1], sides multiples of `multiple` -> latent (B, C, H/f, W/f).

        The posterior's mode; with a generator a sample of it, as the reference implementation takes.
        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"expected an image of shape (B, 3, H, W), got {tuple(image.shape)}")
        if any(side == 0 or side % self.multiple for side in image.shape[2:]):
            raise ValueError(f"expected sides that are multiples of {self.multiple}, got {tuple(image.shape[2:])}")
        if generator is None:
            return self.launch(("encode",), self._encode, image)
        return self._encode(image, generator)

    def _encode(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        posterior = self.vae.encode(image.to(self.vae.dtype)).latent_dist
        latent = posterior.mode() if generator is None else posterior.sample(generator)
        return ((latent - (self.vae.config.shift_factor or 0.0)) * self.vae.config.scaling_factor).to(self.dtype)

    def decode(self, latent: Tensor) -> Tensor:
        """latent (B, C, h, w) -> annotation (B, 3, h*f, w*f), float32 in [0, 1]."""
        return self.launch(("decode",), self._decode, latent)

    def _decode(self, latent: Tensor) -> Tensor:
        latent = latent / self.vae.config.scaling_factor + (self.vae.config.shift_factor or 0.0)
        decoded = self.vae.decode(latent.to(self.vae.dtype)).sample
        # float32 before the clamp: bfloat16 has about 384 values in [0, 1].
        return (decoded.float() * 0.5 + 0.5).clamp(0.0, 1.0)

    # Latent -> latent

    def core(self, latent: Tensor, task: str) -> Tensor:
        """The core predictor: image latent (B, C, h, w) -> annotation latent, same shape, in one pass."""
        self.require(CORE, task)
        return self.continuity[task](self.transform(latent, CORE, task, CORE_TIMESTEP))

    def cores(self, latent: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        """The core predictor of several tasks on one image: latent (1, C, h, w) -> annotation latents by task."""
        return {task: self.core(latent, task) for task in tasks}

    def velocity(self, latent: Tensor, task: str, sigma: float | Tensor) -> Tensor:
        """The detail sharpener's d latent / d sigma at sigma, a number or (B,), between 1 (coarse) and 0 (sharp)."""
        self.require(SHARPENER, task)
        return self.transform(latent, SHARPENER, task, sigma * self.scheduler.config.num_train_timesteps)

    def sharpen(self, latent: Tensor, task: str, steps: int | None = None) -> Iterator[Tensor | None]:
        """Euler steps from the core predictor's latent: yields None after each but the last, then the sharp latent."""
        self.require(SHARPENER, task)  # told here rather than in the middle of a step
        height, width = latent.shape[2:]
        sigmas = self.sigmas(self.sharpener_steps if steps is None else steps, height * width // 4)
        sharp = latent.float()
        for sigma, following in pairwise(sigmas):
            sharp = sharp + (following - sigma) * self.velocity(sharp.to(self.dtype), task, sigma).float()
            yield None if following > 0 else sharp.to(self.dtype)

    def sigmas(self, steps: int, tokens: int) -> list[float]:
        """The sharpener's steps + 1 noise levels from 1 to 0, shifted for a latent of that many tokens."""
        if steps < 1:
            raise ValueError(f"expected at least one sharpener step, got {steps}")
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.scheduler.config)
        config, shift = scheduler.config, None
        if config.use_dynamic_shifting:
            slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
            shift = config.base_shift + slope * (tokens - config.base_image_seq_len)
        scheduler.set_timesteps(sigmas=[(steps - i) / steps for i in range(steps)], mu=shift)
        return scheduler.sigmas.tolist()

    def transform(self, latent: Tensor, stage: str, task: str, timestep: float | Tensor) -> Tensor:
        """One pass of the transformer of that stage and task, at a timestep (a number or (B,)) on its own scale."""
        raise NotImplementedError


class ImageSizeError(ValueError):
    """An image that is too small for the model."""


def process_size(height: int, width: int, resolution: int, multiple: int) -> tuple[int, int]:
    """The size (height, width) at which an image is processed.

    The longer side is brought down to `resolution` when it is above it, never up. Then the shorter side goes down to a
    multiple of `multiple`, and the longer side follows in proportion and goes down to a multiple too.
    """
    longer = max(height, width)
    if longer > resolution:
        height, width = height * resolution // longer, width * resolution // longer
    shorter = min(height, width)
    fitted = shorter // multiple * multiple
    if fitted == 0:
        raise ImageSizeError(
            f"image too small: its shorter side is {shorter} px at processing size, needs {multiple} px"
        )
    return height * fitted // shorter // multiple * multiple, width * fitted // shorter // multiple * multiple
