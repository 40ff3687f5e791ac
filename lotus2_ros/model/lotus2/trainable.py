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
from diffusers import FluxTransformer2DModel
from peft import LoraConfig
from torch import Tensor

from lotus2_ros.model.layers.lora import LoraSpec, as_targets
from lotus2_ros.model.lotus2 import flux
from lotus2_ros.model.lotus2.base import CORE, SHARPENER, Lotus2, adapter_name
from lotus2_ros.model.lotus2.conditioning import Conditioner
from lotus2_ros.model.lotus2.source import Source
from lotus2_ros.model.manifest import ModelSettings, plain_config
from lotus2_ros.model.trainable import TrainableModel, TrainedPart
from lotus2_ros.model.weights import assign_weights, stored_state

# Layers of the released LoRAs: attention and feed-forward of double blocks; queries, keys, values of single blocks.
LORA_TARGETS = (
    r"transformer_blocks\.\d+\.(attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)|ff(_context)?\.net\.(0\.proj|2))"
    r"|single_transformer_blocks\.\d+\.attn\.to_[qkv]"
)

EMBEDDINGS = ("conditioner.prompt_embeds", "conditioner.pooled")


class TrainableLotus2(Lotus2, TrainableModel):
    """A `Lotus2` that can be trained. `patch`: side of a token in latent pixels."""

    def __init__(
        self,
        configs: Mapping[str, Mapping[str, Any]],
        transformer: FluxTransformer2DModel,
        settings: ModelSettings,
        *,
        prompt_embeds: Tensor,
        pooled: Tensor,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(configs, settings, metadata)
        self.patch = _patch(self.vae.config.latent_channels, self.latent_channels, transformer)
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
        """A model with random weights. configs: by component, as in the manifest.

        The prompt is constant: one-hot tokens, which each select a column of the context embedder, and a pooled vector
        of zeros.
        """
        transformer = FluxTransformer2DModel(**configs["transformer"])
        return cls(
            configs,
            transformer,
            settings,
            prompt_embeds=torch.eye(prompt_tokens, transformer.config.joint_attention_dim)[None],
            pooled=torch.zeros(1, transformer.config.pooled_projection_dim),
            metadata=metadata,
        )

    @classmethod
    def on_meta(cls, source: Source) -> TrainableLotus2:
        """The model of a source on the meta device."""
        with torch.device("meta"):
            model = cls.from_config(
                source.configs, source.settings, prompt_tokens=source.prompt_tokens, metadata=source.metadata
            )
            for name, lora in source.adapters.items():
                model._add_adapter(name, lora.rank, lora.scale * lora.rank, lora.targets)
        return model

    @classmethod
    def load(cls, source: Source, device: torch.device, dtype: torch.dtype) -> TrainableLotus2:
        """The model of a source, ready to run."""
        model = cls.on_meta(source)
        state = dict(zip(EMBEDDINGS, source.embed_prompt(), strict=True))
        state |= {name: source.read(name) for name in stored_state(model) if name not in EMBEDDINGS}
        assign_weights(model, state, device, model.dtype_of(dtype))
        return model.eval().requires_grad_(False)

    def source(self) -> Source:
        """The reverse: the model as it is now."""
        state = {name: tensor.detach() for name, tensor in stored_state(self).items()}
        adapters = {
            name: LoraSpec(config.r, config.lora_alpha / config.r, as_targets(config.target_modules))
            for name, config in self.adapters.items()
        }
        return Source(
            self.configs,
            adapters,
            self.settings,
            self.prompt_tokens,
            self.metadata,
            state.__getitem__,
            lambda: (self.conditioner.prompt_embeds, self.conditioner.pooled),
        )

    @property
    def configs(self) -> dict[str, dict[str, Any]]:
        """Those that made the model, by component."""
        configs = {
            "vae": self.vae.config.model_dump(),
            "transformer": plain_config(self.transformer.config),
            "scheduler": self.scheduler.model_dump(),
        }
        optional = {"prior": self.prior, "uncertainty": self.uncertainty}
        return configs | {name: part.config for name, part in optional.items() if part is not None}

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
        self._add_adapter(adapter_name(stage, task), rank, rank if alpha is None else alpha, targets)

    def _add_adapter(self, name: str, rank: int, alpha: float, targets: str | Sequence[str]) -> None:
        targets = targets if isinstance(targets, str) else sorted(targets)
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets)
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
        task, and the VAE's decoder if that is asked for. The sharpener: its LoRAs. The uncertainty: its head."""
        frozen = all(adapter_name(CORE, task) in self.adapters for task in self.tasks)

        def belongs(name: str) -> bool:
            if name.startswith("prior.backbone."):
                return False
            if part == "uncertainty" or name.startswith("uncertainty."):
                return part == "uncertainty" and name.startswith("uncertainty.")
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
    inputs = of_image * patch**2, (channels + of_image) * patch**2
    if patch not in (1, 2) or given != channels * patch**2 or taken not in inputs:
        raise ValueError(
            f"expected a transformer from {4 * of_image} or {4 * (channels + of_image)} to {4 * channels} channels, "
            f"for latents packed 2x2, got {taken} to {given}"
        )
    return patch
