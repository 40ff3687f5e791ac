"""Lotus-D and Lotus-G (arXiv 2409.18124): a Stable Diffusion U-Net for each task, which predicts the annotation in one
pass; D from the image alone, G from the image and noise, so that other noise gives another sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from lotus2_ros.model.interface import SPACES, InferenceModel

TIMESTEP = 999
# The task switcher, sin and cos of (1, 0) for the annotation and of (0, 1) for the image again, which is only trained.
ANNOTATION = (math.sin(1), math.sin(0), math.cos(1), math.cos(0))
RECONSTRUCTION = (math.sin(0), math.sin(1), math.cos(0), math.cos(1))
# More than the sizes of one session; a bound for those who run through images of all sizes.
REMEMBERED = 64


class Lotus(InferenceModel):
    """configs: of diffusers' vae and of the U-Net, by its `in_channels` that of D or of G.

    `predicts`: the space of its depths, disparity or depth. `prompt_shape` (tokens, channels) of the empty prompt's
    embedding; `samples` of G from noise of `seed`, the same for every image of a size, so that an image that stays the
    same is answered the same. The rest as for `GeometryModel`.
    """

    upsampling = "nearest-exact"
    prompt_embeds: Tensor

    def __init__(
        self,
        configs: Mapping[str, Mapping[str, Any]],
        *,
        tasks: Sequence[str],
        predicts: str,
        prompt_shape: tuple[int, int],
        process_resolution: int,
        antialias: bool = True,
        enlarges: bool = True,
        samples: int = 1,
        seed: int = 0,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        vae = AutoencoderKL(**configs["vae"])
        super().__init__(
            vae,
            tasks=tasks,
            latent_multiple=1,
            process_resolution=process_resolution,
            antialias=antialias,
            metadata=metadata,
        )
        if predicts not in SPACES:
            raise ValueError(f"expected a model that predicts {' or '.join(SPACES)}, got {predicts}")
        self.configs, self.predicts, self.enlarges = configs, predicts, enlarges
        self.unets = nn.ModuleDict({task: UNet2DConditionModel(**configs["unet"]) for task in tasks})
        channels = vae.config.latent_channels
        taken, given = configs["unet"]["in_channels"], configs["unet"]["out_channels"]
        if taken not in (channels, 2 * channels) or given != channels:
            raise ValueError(
                f"expected a U-Net from {channels} or {2 * channels} to {channels} channels, got {taken} to {given}"
            )
        self.generative = taken == 2 * channels
        self.samples, self.seed = (samples if self.generative else 1), seed
        self.register_buffer("prompt_embeds", torch.zeros(1, *prompt_shape))
        self._noises: dict[tuple[int, ...], Tensor] = {}

    @property
    def family(self) -> str:
        return "lotus-g" if self.generative else "lotus-d"

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unets.parameters()).dtype

    @property
    def linear_precision(self) -> str:
        return "float32" if self.dtype == torch.float32 else "bfloat16"

    def predict(self, latent: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        if self.generative:
            latent = torch.cat((latent.expand(self.samples, -1, -1, -1), self.noise(latent)), dim=1)
        return {task: self.transform(latent, task) for task in tasks}

    def transform(self, latent: Tensor, task: str, switch: tuple[float, ...] = ANNOTATION) -> Tensor:
        """What the U-Net of a task makes of image latents (B, C, h, w), of G with noise behind them (B, 2C, h, w)."""
        self.require_task(task)
        count, unet = len(latent), self.unets[task]

        def run(latent: Tensor, timestep: Tensor, prompt: Tensor, labels: Tensor) -> Tensor:
            return unet(latent, timestep, prompt, class_labels=labels).sample

        return self.executor(
            ("transform", task, switch),
            run,
            latent,
            torch.full((count,), TIMESTEP, device=self.device),
            self.prompt_embeds.expand(count, -1, -1),
            torch.tensor(switch, device=self.device, dtype=self.dtype).expand(count, -1),
        )

    def noise(self, latent: Tensor) -> Tensor:
        """(samples, C, h, w) for an image latent (1, C, h, w); sample N is the same however many there are."""
        shape = tuple(latent.shape)
        if shape not in self._noises:
            if len(self._noises) >= REMEMBERED:
                self._noises.clear()
            generator = torch.Generator().manual_seed(self.seed)
            noises = [torch.randn(shape, generator=generator) for _ in range(self.samples)]
            self._noises[shape] = torch.cat(noises).to(latent)
        return self._noises[shape]

    def compiled_parts(self) -> Mapping[nn.Module, bool]:
        return dict.fromkeys((*self.unets.values(), self.vae.encoder, self.vae.decoder), False)

    def on_meta(self, tasks: Sequence[str]) -> Lotus:
        with torch.device("meta"):
            return Lotus(
                self.configs,
                tasks=tasks,
                predicts=self.predicts,
                prompt_shape=(self.prompt_embeds.shape[1], self.prompt_embeds.shape[2]),
                process_resolution=self.process_resolution,
                antialias=self.antialias,
                enlarges=self.enlarges,
                samples=self.samples,
            ).eval()

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Moved or converted: noise that is remembered is elsewhere, and of another dtype."""
        self._noises.clear()
        return super()._apply(*args, **kwargs)
