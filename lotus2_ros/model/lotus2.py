"""Lotus-2: one FLUX transformer that turns the latent of an image into the latent of its disparity or normals.

The core predictor does it in one deterministic pass; the detail sharpener refines the result in a few Euler steps of a
rectified flow (arXiv 2512.01030). Both are LoRA adapters on one base, for each task; where a bundle has no adapter for
a core predictor, the base itself is that predictor.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from peft import LoraConfig
from torch import Tensor, nn

from lotus2_ros.model import flux
from lotus2_ros.model.conditioning import Conditioner
from lotus2_ros.model.continuity import LocalContinuity

CORE, SHARPENER = "core_predictor", "detail_sharpener"
# The released adapters' layers: attention and feed-forward of the double blocks, queries, keys, values of the single.
LORA_TARGETS = (
    r"transformer_blocks\.\d+\.(attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)|ff(_context)?\.net\.(0\.proj|2))"
    r"|single_transformer_blocks\.\d+\.attn\.to_[qkv]"
)
CORE_TIMESTEP = 1.0


def adapter_name(stage: str, task: str) -> str:
    return f"{stage}_{task}"


class Lotus2(nn.Module):
    """The network and what belongs to it.

    `tasks` it can do; `multiple`: sides of an image must be multiples of it; `process_resolution`: the longer side it
    is meant for, at most; `antialias`: whether images are low-pass filtered when they are brought down to it;
    `sharpener_steps` by default; `metadata`: name, licence and whatever else its bundle tells.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        transformer: FluxTransformer2DModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
        *,
        tasks: Sequence[str],
        prompt_embeds: Tensor,
        pooled: Tensor,
        process_resolution: int,
        antialias: bool = False,
        sharpener_steps: int = 10,
        conditioning: str = "bfloat16",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        channels = vae.config.latent_channels
        if transformer.config.in_channels != 4 * channels:
            raise ValueError(
                f"the transformer takes {transformer.config.in_channels} channels, "
                f"but {channels} latent channels packed 2x2 are {4 * channels}"
            )
        self.vae, self.transformer, self.scheduler = vae, transformer, scheduler
        self.continuity = nn.ModuleDict({task: LocalContinuity(channels) for task in tasks})
        self.conditioner = Conditioner(prompt_embeds, pooled, conditioning)
        self.tasks = tuple(tasks)
        self.vae_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.multiple = 2 * self.vae_factor
        self.process_resolution = process_resolution
        self.antialias = antialias
        self.sharpener_steps = sharpener_steps
        self.metadata = dict(metadata or {})
        self.adapters: dict[str, LoraConfig] = {}
        self._active: str | None = None

    @classmethod
    def from_config(
        cls,
        vae_config: Mapping[str, Any],
        transformer_config: Mapping[str, Any],
        scheduler_config: Mapping[str, Any],
        *,
        prompt_tokens: int,
        **settings: Any,
    ) -> Lotus2:
        """A model with random weights; `settings` as for the constructor.

        Its prompt is constant: one-hot tokens, so that each is a learnable column of the context embedder, and a zero
        pooled vector, which leaves that embedder's bias.
        """
        transformer = FluxTransformer2DModel(**transformer_config)
        return cls(
            AutoencoderKL(**vae_config),
            transformer,
            FlowMatchEulerDiscreteScheduler(**scheduler_config),
            prompt_embeds=torch.eye(prompt_tokens, transformer.config.joint_attention_dim)[None],
            pooled=torch.zeros(1, transformer.config.pooled_projection_dim),
            **settings,
        )

    @property
    def name(self) -> str:
        return str(self.metadata.get("name", "lotus-2"))

    @property
    def conditioning(self) -> str:
        """The dtype in which timestep and guidance are rounded."""
        return self.conditioner.rounding

    @property
    def dtype(self) -> torch.dtype:
        return self.transformer.x_embedder.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.transformer.x_embedder.weight.device

    def dtype_of(self, dtype: torch.dtype) -> Callable[[str], torch.dtype]:
        """The dtype of each parameter, by name, when the model computes in `dtype`.

        FLUX's VAE overflows float16, which its config says with `force_upcast`.
        """
        vae = torch.float32 if dtype == torch.float16 and self.vae.config.force_upcast else dtype
        return lambda parameter: vae if parameter.startswith("vae.") else dtype

    # Adapters

    def add_adapter(
        self, stage: str, task: str, rank: int, alpha: float | None = None, targets: str | Sequence[str] = LORA_TARGETS
    ) -> None:
        """A new LoRA, which changes nothing until it is trained or loaded. PEFT freezes the base when it is added."""
        name = adapter_name(stage, task)
        targets = targets if isinstance(targets, str) else sorted(targets)
        config = LoraConfig(r=rank, lora_alpha=rank if alpha is None else alpha, target_modules=targets)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are what is wanted
            self.transformer.add_adapter(config, name)
        self.transformer.enable_adapters()
        self.adapters[name], self._active = config, name

    def has_sharpener(self, task: str) -> bool:
        return adapter_name(SHARPENER, task) in self.adapters

    def select(self, stage: str, task: str) -> None:
        """Make the transformer the one of this stage and task."""
        if task not in self.tasks:
            raise ValueError(f"{self.name} has no task {task!r}; it has {', '.join(self.tasks)}")
        name: str | None = adapter_name(stage, task)
        if name not in self.adapters:
            if stage != CORE:
                raise ValueError(f"{self.name} has no {stage} for {task}")
            name = None
        if name == self._active:
            return
        if name is None:
            self.transformer.disable_adapters()
        else:
            self.transformer.enable_adapters()
            self.transformer.set_adapter(name)
        self._active = name

    # Image <-> latent

    def encode(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """image (B, 3, H, W) in [-1, 1], sides multiples of `multiple` -> latent (B, C, H/f, W/f).

        The posterior's mode; with a generator a sample of it, as the reference implementation takes.
        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"expected an image of shape (B, 3, H, W), got {tuple(image.shape)}")
        if any(side == 0 or side % self.multiple for side in image.shape[2:]):
            raise ValueError(f"expected sides that are multiples of {self.multiple}, got {tuple(image.shape[2:])}")
        posterior = self.vae.encode(image.to(self.vae.dtype)).latent_dist
        latent = posterior.mode() if generator is None else posterior.sample(generator)
        return ((latent - (self.vae.config.shift_factor or 0.0)) * self.vae.config.scaling_factor).to(self.dtype)

    def decode(self, latent: Tensor) -> Tensor:
        """latent (B, C, h, w) -> annotation (B, 3, h*f, w*f), float32 in [0, 1]."""
        latent = latent / self.vae.config.scaling_factor + (self.vae.config.shift_factor or 0.0)
        decoded = self.vae.decode(latent.to(self.vae.dtype)).sample
        # float32 before the clamp: bfloat16 has about 384 values in [0, 1].
        return (decoded.float() * 0.5 + 0.5).clamp(0.0, 1.0)

    # Latent -> latent

    def core(self, latent: Tensor, task: str) -> Tensor:
        """The core predictor: image latent (B, C, h, w) -> annotation latent, same shape, in one pass."""
        self.select(CORE, task)
        return self.continuity[task](self._transform(latent, CORE_TIMESTEP))

    def velocity(self, latent: Tensor, task: str, sigma: float | Tensor) -> Tensor:
        """The detail sharpener's d latent / d sigma at sigma, a number or (B,), between 1 (coarse) and 0 (sharp)."""
        self.select(SHARPENER, task)
        return self._transform(latent, sigma * self.scheduler.config.num_train_timesteps)

    def sharpen(self, latent: Tensor, task: str, steps: int | None = None) -> Iterator[Tensor | None]:
        """Euler steps from the core predictor's latent: yields None after each but the last, then the sharp latent."""
        self.select(SHARPENER, task)  # a missing sharpener is told here rather than in the middle of a step
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

    def _transform(self, latent: Tensor, timestep: float | Tensor) -> Tensor:
        height, width = latent.shape[2:]
        conditioning = self.conditioner(self.transformer, timestep, height // 2, width // 2)
        return flux.unpack(flux.transform(self.transformer, flux.pack(latent), conditioning), height, width)


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
