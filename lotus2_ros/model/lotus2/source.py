"""A trained or released Lotus-2 as configs and weights by name, without the trainable model.

It can be fused (`fuse.py`) or built in its trainable form (`trainable.py`). Weights have the names of diffusers and
PEFT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lotus2_ros.model.layers.lora import LoraSpec
from lotus2_ros.model.lotus2.blocks import MLP_RATIO
from lotus2_ros.model.lotus2.conditioning import SINUSOIDS
from lotus2_ros.model.lotus2.continuity import LocalContinuity
from lotus2_ros.model.lotus2.uncertainty import PATCH, UncertaintyHead
from lotus2_ros.model.manifest import ModelSettings
from lotus2_ros.model.prior.prior import ImagePrior
from lotus2_ros.model.vae import Vae, VaeConfig


@dataclass(frozen=True)
class Source:
    """configs: by component, as in the manifest, complete. adapters: the LoRAs.

    `read` gives a weight by its name in `shapes`, on the CPU and in the dtype of its file. `embed_prompt` gives the
    prompt's embeddings (1, T, D) and the pooled one (1, P).
    """

    configs: Mapping[str, Mapping[str, Any]]
    adapters: Mapping[str, LoraSpec]
    settings: ModelSettings
    prompt_tokens: int
    metadata: Mapping[str, Any]
    read: Callable[[str], Tensor]
    embed_prompt: Callable[[], tuple[Tensor, Tensor]]

    def __post_init__(self) -> None:
        """Networks with another packing can be trained, to be compared, but not run."""
        config, prior = self.configs["transformer"], self.configs.get("prior")
        latent = self.configs["vae"]["latent_channels"]
        expected = PATCH**2 * (latent + (prior["channels"] if prior else 0)), PATCH**2 * latent
        taken = config["in_channels"]
        given = config["out_channels"] or taken
        if (taken, given) != expected:
            raise ValueError(
                f"expected a transformer from {expected[0]} to {expected[1]} channels, for latents packed 2x2, "
                f"got {taken} to {given}"
            )

    def shapes(self) -> dict[str, Tensor]:
        """All weights by name, on the meta device."""
        vae, prior, head = VaeConfig(**self.configs["vae"]), self.configs.get("prior"), self.configs.get("uncertainty")
        with torch.device("meta"):
            parts: dict[str, nn.Module] = {"vae": Vae(vae)}
            if prior is not None:
                parts["prior"] = ImagePrior(prior, vae.factor)
            if head is not None:
                parts["uncertainty"] = UncertaintyHead(head, vae.latent_channels + (prior["channels"] if prior else 0))
            continuity = {task: LocalContinuity(vae.latent_channels) for task in self.settings.tasks}
            parts |= {f"continuity.{task}": module for task, module in continuity.items()}
            shapes = {name: torch.empty(shape) for name, shape in self._transformer_shapes().items()}
        for part, module in parts.items():
            shapes |= module.state_dict(prefix=f"{part}.")
        return shapes

    def _transformer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the transformer with its LoRAs, and of the prompt's embeddings."""
        config = self.configs["transformer"]
        shapes: dict[str, tuple[int, ...]] = {
            "conditioner.prompt_embeds": (1, self.prompt_tokens, config["joint_attention_dim"]),
            "conditioner.pooled": (1, config["pooled_projection_dim"]),
        }
        for layer, (given, taken) in linear_layers(config).items():
            name = f"transformer.{layer}"
            shapes |= {f"{name}.weight": (given, taken), f"{name}.bias": (given,)}
            for adapter, lora in self.adapters.items():
                if rank := lora.rank_of(layer):
                    shapes[f"{name}.lora_A.{adapter}.weight"] = rank, taken
                    shapes[f"{name}.lora_B.{adapter}.weight"] = given, rank
        for kind, norms in (("", ("q", "k", "added_q", "added_k")), ("single_", ("q", "k"))):
            for i in range(config["num_single_layers" if kind else "num_layers"]):
                block = f"transformer.{kind}transformer_blocks.{i}.attn"
                shapes |= {f"{block}.norm_{norm}.weight": (config["attention_head_dim"],) for norm in norms}
        return shapes


def linear_layers(config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """(out, in) of each linear layer of a `FluxTransformer2DModel`; all have a bias. config: the transformer's."""
    width, pooled = config["num_attention_heads"] * config["attention_head_dim"], config["pooled_projection_dim"]
    wide = MLP_RATIO * width
    layers = {
        "x_embedder": (width, config["in_channels"]),
        "context_embedder": (width, config["joint_attention_dim"]),
        "norm_out.linear": (2 * width, width),
        "proj_out": (config["out_channels"] or config["in_channels"], width),
    }
    embedders = {"timestep": SINUSOIDS, "text": pooled} | ({"guidance": SINUSOIDS} if config["guidance_embeds"] else {})
    for name, taken in embedders.items():
        layers[f"time_text_embed.{name}_embedder.linear_1"] = width, taken
        layers[f"time_text_embed.{name}_embedder.linear_2"] = width, width
    for i in range(config["num_layers"]):
        block = f"transformer_blocks.{i}"
        layers |= {f"{block}.{norm}.linear": (6 * width, width) for norm in ("norm1", "norm1_context")}
        of_image, of_prompt = ("to_q", "to_k", "to_v", "to_out.0"), ("add_q_proj", "add_k_proj", "add_v_proj")
        layers |= {f"{block}.attn.{name}": (width, width) for name in (*of_image, *of_prompt, "to_add_out")}
        for mlp in ("ff", "ff_context"):
            layers |= {f"{block}.{mlp}.net.0.proj": (wide, width), f"{block}.{mlp}.net.2": (width, wide)}
    for i in range(config["num_single_layers"]):
        block = f"single_transformer_blocks.{i}"
        layers |= {f"{block}.attn.{name}": (width, width) for name in ("to_q", "to_k", "to_v")}
        layers |= {f"{block}.norm.linear": (3 * width, width), f"{block}.proj_mlp": (wide, width)}
        layers[f"{block}.proj_out"] = width, width + wide
    return layers
