"""Lotus-D and Lotus-G (arXiv 2409.18124): a Stable Diffusion U-Net for each task that predicts the annotation in one
pass. Lotus-D takes the image alone; Lotus-G takes image and noise, and other noise gives another sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from lotus2_ros.model.manifest import ModelSettings
from lotus2_ros.model.noise import draw_noise
from lotus2_ros.model.torch_model import InferenceModel
from lotus2_ros.model.trainable import TrainableModel, TrainedPart
from lotus2_ros.model.vae import Vae, VaeConfig

TIMESTEP = 999
# The task switcher: sin and cos of (1, 0) for the annotation, of (0, 1) for the image, which only training uses.
ANNOTATION = (math.sin(1), math.sin(0), math.cos(1), math.cos(0))
RECONSTRUCTION = (math.sin(0), math.sin(1), math.cos(0), math.cos(1))


class Lotus(InferenceModel, TrainableModel):
    """A VAE, and a U-Net for each task.

    configs: of vae, unet and maybe a prior, with diffusers' keys; the U-Net's `in_channels` decide between D and G.
    prompt_shape: tokens and channels of the empty prompt's embedding. samples: how many Lotus-G draws, from noise of
    `seed`. The noise is the same for every image of a size, so that the result for an image that does not change stays
    the same.
    """

    upsampling = "nearest-exact"
    prompt_embeds: Tensor

    def __init__(
        self,
        configs: Mapping[str, Mapping[str, Any]],
        settings: ModelSettings,
        *,
        prompt_shape: tuple[int, int],
        samples: int = 1,
        seed: int = 0,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        vae = Vae(VaeConfig(**configs["vae"]))
        prior = configs.get("prior")
        super().__init__(vae, settings, latent_multiple=prior["patch"] if prior else 1, metadata=metadata, prior=prior)
        self.configs = configs
        self.unets = nn.ModuleDict({task: UNet2DConditionModel(**configs["unet"]) for task in self.tasks})
        channels, of_image = vae.config.latent_channels, self.latent_channels
        taken, given = configs["unet"]["in_channels"], configs["unet"]["out_channels"]
        if taken not in (of_image, of_image + channels) or given != channels:
            raise ValueError(
                f"expected a U-Net from {of_image} or {of_image + channels} to {channels} channels, "
                f"got {taken} to {given}"
            )
        self.generative = taken > of_image
        self.samples, self.seed = (samples if self.generative else 1), seed
        self.register_buffer("prompt_embeds", torch.zeros(1, *prompt_shape))

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
        return {task: self.core(latent, task) for task in tasks}

    def transform(
        self, latent: Tensor, task: str, switch: tuple[float, ...] = ANNOTATION, timestep: int | Tensor = TIMESTEP
    ) -> Tensor:
        """A pass of a task's U-Net at a timestep, a number or (B,): image latents (B, C + F, h, w), for G with noise
        behind them (B, C + F + C, h, w) -> (B, C, h, w)."""
        self.require_task(task)
        count, unet = len(latent), self.unets[task]

        def run(latent: Tensor, timestep: Tensor, prompt: Tensor, labels: Tensor) -> Tensor:
            return unet(latent, timestep, prompt, class_labels=labels).sample

        return self.executor(
            ("transform", task, switch),
            run,
            latent,
            (timestep if isinstance(timestep, Tensor) else self._constant(timestep, torch.int64)).expand(count),
            self.prompt_embeds.expand(count, -1, -1),
            self._constant(switch, self.dtype).expand(count, -1),
        )

    def _constant(self, value: int | tuple[float, ...], dtype: torch.dtype) -> Tensor:
        """On the device; copied there once, because a frame would wait for each copy."""
        return self.cached(("constant", value), lambda: torch.tensor(value, device=self.device, dtype=dtype))

    def noise(self, latent: Tensor) -> Tensor:
        """(samples, C, h, w) for an image latent (1, C + F, h, w)."""
        shape = tuple(self.without_features(latent).shape)
        return self.cached(("noise", shape), lambda: draw_noise(shape, self.samples, self.seed).to(latent))

    @property
    def noise_channels(self) -> int:
        return self.vae.config.latent_channels if self.generative else 0

    def core(self, latent: Tensor, task: str) -> Tensor:
        return self.carry_features(self.transform(latent, task), latent)

    def compiled_parts(self) -> Mapping[nn.Module, bool]:
        prior = [self.prior] if self.prior else []
        return dict.fromkeys((*self.unets.values(), self.vae.encoder, self.vae.decoder, *prior), False)

    def on_meta(self, tasks: Sequence[str], precision: str = "float32", sharpeners: bool = True) -> Lotus:
        with torch.device("meta"):
            return Lotus(
                self.configs,
                self.settings.changed(tasks=tuple(tasks)),
                prompt_shape=(self.prompt_embeds.shape[1], self.prompt_embeds.shape[2]),
                samples=self.samples,
            ).eval()

    def trainable_parameters(self, part: TrainedPart) -> dict[str, Tensor]:
        """The core: the U-Nets, a prior's perceptron, and the VAE's decoder if that is asked for."""
        core = ("unets.", "prior.perceptron.")
        prefixes = {"vae": ("vae.",), "core": core, "core_and_decoder": (*core, "vae.decoder.")}.get(part, ())
        return {name: parameter for name, parameter in self.named_parameters() if name.startswith(prefixes)}

    def enable_gradient_checkpointing(self) -> None:
        for unet in self.unets.values():
            cast(UNet2DConditionModel, unet).enable_gradient_checkpointing()
