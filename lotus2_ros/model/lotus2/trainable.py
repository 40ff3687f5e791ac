"""Lotus-2 as it is trained and released: diffusers' FLUX transformer with several LoRAs on one base.

Each stage of each task is a LoRA. A core predictor without one is the base itself.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from peft import LoraConfig
from torch import Tensor

from lotus2_ros.model.lotus2 import flux
from lotus2_ros.model.lotus2.base import CORE, SHARPENER, Lotus2, adapter_name
from lotus2_ros.model.lotus2.conditioning import Conditioner
from lotus2_ros.model.manifest import ModelSettings, plain_config
from lotus2_ros.model.trainable import TrainableModel, TrainedPart

# Layers of the released LoRAs: attention and feed-forward of double blocks; queries, keys, values of single blocks.
LORA_TARGETS = (
    r"transformer_blocks\.\d+\.(attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)|ff(_context)?\.net\.(0\.proj|2))"
    r"|single_transformer_blocks\.\d+\.attn\.to_[qkv]"
)


class TrainableLotus2(Lotus2, TrainableModel):
    """A `Lotus2` that can be trained. `patch`: side of a token in latent pixels."""

    def __init__(
        self,
        vae: AutoencoderKL,
        transformer: FluxTransformer2DModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
        settings: ModelSettings,
        *,
        prompt_embeds: Tensor,
        pooled: Tensor,
        metadata: Mapping[str, Any] | None = None,
        prior: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(vae, scheduler, settings, metadata, prior)
        self.patch = _patch(vae.config.latent_channels, self.latent_channels, transformer)
        self.transformer = transformer
        self.conditioner = Conditioner(prompt_embeds, pooled, settings.timestep_dtype)
        self.adapters: dict[str, LoraConfig] = {}
        self._active: str | None = None

    @classmethod
    def from_config(
        cls,
        configs: Mapping[str, Mapping[str, Any]],
        settings: ModelSettings,
        *,
        prompt_tokens: int,
        metadata: Mapping[str, Any] | None = None,
    ) -> TrainableLotus2:
        """A model with random weights. configs: those of diffusers' vae, transformer and scheduler, and of a prior.

        The prompt is constant: one-hot tokens, which each select a column of the context embedder, and a pooled vector
        of zeros.
        """
        transformer = FluxTransformer2DModel(**configs["transformer"])
        return cls(
            AutoencoderKL(**configs["vae"]),
            transformer,
            FlowMatchEulerDiscreteScheduler(**configs["scheduler"]),
            settings,
            prompt_embeds=torch.eye(prompt_tokens, transformer.config.joint_attention_dim)[None],
            pooled=torch.zeros(1, transformer.config.pooled_projection_dim),
            metadata=metadata,
            prior=configs.get("prior"),
        )

    @property
    def configs(self) -> dict[str, dict[str, Any]]:
        """Those that made the model, by component."""
        plain = {name: plain_config(getattr(self, name).config) for name in ("vae", "transformer", "scheduler")}
        return plain | ({"prior": self.prior.config} if self.prior else {})

    @property
    def dtype(self) -> torch.dtype:
        return self.transformer.x_embedder.weight.dtype

    @property
    def prompt_tokens(self) -> int:
        return self.conditioner.prompt_embeds.shape[1]

    def add_adapter(
        self, stage: str, task: str, rank: int, alpha: float | None = None, targets: str | Sequence[str] = LORA_TARGETS
    ) -> None:
        """Add a LoRA, which has no effect until it is trained or loaded. PEFT freezes the base."""
        name = adapter_name(stage, task)
        targets = targets if isinstance(targets, str) else sorted(targets)
        config = LoraConfig(r=rank, lora_alpha=rank if alpha is None else alpha, target_modules=targets)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are intended
            self.transformer.add_adapter(config, name)
        self.transformer.enable_adapters()
        self.adapters[name], self._active = config, name

    def has_sharpener(self, task: str) -> bool:
        return adapter_name(SHARPENER, task) in self.adapters

    def select(self, stage: str, task: str) -> None:
        """Activate the adapter of this stage and task."""
        self.require(stage, task)
        adapter = adapter_name(stage, task)
        name = adapter if adapter in self.adapters else None
        if name == self._active:
            return
        if name is None:
            self.transformer.disable_adapters()
        else:
            self.transformer.enable_adapters()
            self.transformer.set_adapter(name)
        self._active = name

    def transform(self, latent: Tensor, stage: str, task: str, timestep: float | Tensor) -> Tensor:
        self.select(stage, task)
        height, width = latent.shape[2:]
        conditioning = self.conditioner(self.transformer, timestep, height // self.patch, width // self.patch)
        tokens = flux.transform(self.transformer, flux.pack(latent, self.patch), conditioning)
        return flux.unpack(tokens, height, width, self.patch)

    def trainable_parameters(self, part: TrainedPart) -> dict[str, Tensor]:
        """The core: LoRAs, continuity modules, a prior's perceptron, the base too where it is the core predictor of a
        task, and the VAE's decoder if that is asked for. The sharpener: its LoRAs."""
        frozen = all(adapter_name(CORE, task) in self.adapters for task in self.tasks)

        def belongs(name: str) -> bool:
            if name.startswith("prior.backbone."):
                return False
            if part == "vae" or name.startswith("vae."):
                trained = {"vae": "vae.", "core_and_decoder": "vae.decoder."}.get(part)
                return trained is not None and name.startswith(trained)
            return (SHARPENER in name) == (part == "sharpener") and not (frozen and is_base(name))

        return {name: parameter for name, parameter in self.named_parameters() if belongs(name)}

    def enable_gradient_checkpointing(self) -> None:
        self.transformer.enable_gradient_checkpointing()

    @contextmanager
    def first_blocks(self, count: int | None) -> Iterator[None]:
        transformer: Any = self.transformer
        blocks = transformer.single_transformer_blocks
        transformer.single_transformer_blocks = blocks if count is None else blocks[:count]
        try:
            yield
        finally:
            transformer.single_transformer_blocks = blocks


def is_base(name: str) -> bool:
    """Whether a weight belongs to VAE or transformer, not to a LoRA or a continuity module."""
    return not (name.startswith("continuity.") or ".lora_" in name)


def _patch(channels: int, of_image: int, transformer: FluxTransformer2DModel) -> int:
    """The side of the square of latent pixels that is one token of the transformer.

    The transformer's output has `channels` latent channels. Its input has those of an image's latent, `of_image`, or
    both if that comes in beside the noisy one.
    """
    taken = transformer.config.in_channels
    given = transformer.config.out_channels or taken
    patch = math.isqrt(given // channels)
    if (
        patch not in (1, 2)
        or given != channels * patch**2
        or taken
        not in (
            of_image * patch**2,
            (channels + of_image) * patch**2,
        )
    ):
        raise ValueError(
            f"expected a transformer from {4 * of_image} or {4 * (channels + of_image)} to {4 * channels} channels, "
            f"for latents packed 2x2, got {taken} to {given}"
        )
    return patch
