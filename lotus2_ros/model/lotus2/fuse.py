"""Fusion: from the released or trained weights to those of the fused model, part by part.

Merging LoRAs, fusing layers and tabulating the modulation do not change the function; in float32 the results differ by
rounding only. Each part is read, fused and handed on before the next one, so the model may be larger than the memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lotus2_ros.model.layers.adaln import AdaLN, fit_curve
from lotus2_ros.model.layers.linear import store_linear
from lotus2_ros.model.layers.lora import LoraDelta, LoraLinear, LoraSpec, as_targets
from lotus2_ros.model.lotus2.base import CORE, FusedPlan, adapter_name
from lotus2_ros.model.lotus2.blocks import HeadNorms
from lotus2_ros.model.lotus2.conditioning import rounded_guidance
from lotus2_ros.model.lotus2.fused import FusedLotus2
from lotus2_ros.model.lotus2.trainable import TrainableLotus2
from lotus2_ros.model.memory import require_memory
from lotus2_ros.model.progress import ProgressLog
from lotus2_ros.model.weights import CheckpointError, assign_weights, stored_state

ROTATED = r".*\.(to_[qk]|add_[qk]_proj|norm_(added_)?[qk])"
# Layers that are fused into constants. A LoRA must not adapt them.
CONSTANT = r"time_text_embed\..*|context_embedder|norm_out\.linear|.*\.norm1?(_context)?\.linear"


@dataclass(frozen=True)
class Source:
    """A model to be fused.

    `model` has its structure; its weights may be on the meta device. `read` gives a weight by its name in
    `stored_state`, on the CPU and in the dtype of its file. `embed_prompt` gives the prompt's embeddings (1, T, D) and
    the pooled one (1, P).
    """

    model: TrainableLotus2
    read: Callable[[str], Tensor]
    embed_prompt: Callable[[], tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, model: TrainableLotus2) -> Source:
        """A model that is in memory."""
        state = {name: tensor.detach() for name, tensor in stored_state(model).items()}
        return cls(model, state.__getitem__, lambda: (model.conditioner.prompt_embeds, model.conditioner.pooled))


@dataclass(frozen=True)
class FusedPart:
    """A part of a fused model: float32 tensors, by their names in the state of a `FusedLotus2` in float32."""

    name: str
    tensors: dict[str, Tensor]


class Fusion:
    """The fusion of a `Source`. `model` is the resulting `FusedLotus2` on the meta device."""

    @torch.no_grad()
    def __init__(self, source: Source, precision: str) -> None:
        self._source = source
        adapted = source.model
        self._prompt, pooled = source.embed_prompt()
        highest = float(adapted.scheduler.config.num_train_timesteps)
        self._polynomials, self._curve = fit_curve(self._embed_timestep(pooled), highest)
        adapters = {
            name: LoraSpec(config.r, config.lora_alpha / config.r, as_targets(config.target_modules))
            for name, config in adapted.adapters.items()
        }
        self._check_targets(adapters)
        base = adapter_name(CORE, adapted.tasks[0])
        degrees, rank = self._polynomials.shape
        plan = FusedPlan(base, adapters, precision, adapted.tasks, (degrees, rank))
        with torch.device("meta"):
            self.model = FusedLotus2(
                adapted.configs,
                plan,
                adapted.settings,
                prompt_tokens=self._prompt.shape[1],
                metadata=adapted.metadata,
            )

    @property
    def names(self) -> list[str]:
        """The names of the parts: first VAE, prior and ends, then the blocks in the order of the network."""
        flux = self.model.transformer
        blocks = (("double_blocks", flux.double_blocks), ("single_blocks", flux.single_blocks))
        whole = ["vae", "prior"] if self.model.prior else ["vae"]
        return [*whole, "ends", *(f"{kind}.{i}" for kind, modules in blocks for i in range(len(modules)))]

    def parts(self) -> Iterator[FusedPart]:
        yield from map(self.part, self.names)

    @torch.no_grad()
    def part(self, name: str) -> FusedPart:
        """Read and fuse one part."""
        if name in ("vae", "prior"):
            keys = [key for key in self.model.state_dict() if key.startswith(f"{name}.")]
            return FusedPart(name, {key: self._read(key) for key in keys})
        return FusedPart(name, self._ends() if name == "ends" else self._fuse(f"transformer.{name}"))

    def store(self, part: FusedPart) -> dict[str, Tensor]:
        """A part's tensors in the model's precision. Raises CheckpointError on NaN or Inf."""
        stored = dict(part.tensors)
        for name, tensor in part.tensors.items():
            if not bool(tensor.isfinite().all()):
                raise CheckpointError(f"{name}: expected finite numbers, got NaN or Inf")
        for name, module in self.model.named_modules():
            if isinstance(module, LoraLinear):
                for weight in [key for key in part.tensors if key.startswith(f"{name}.") and key.endswith(".weight")]:
                    prefix = weight.removesuffix("weight")
                    bias = stored.pop(f"{prefix}bias", None)
                    layer = store_linear(module.precision, stored.pop(weight), bias)
                    stored |= {prefix + key: tensor for key, tensor in layer.items()}
        return stored

    def _ends(self) -> dict[str, Tensor]:
        names = [name for name in self.model.state_dict() if name.startswith("continuity.")]
        prompt = F.linear(
            self._prompt.float(),
            self._read("transformer.context_embedder.weight"),
            self._read("transformer.context_embedder.bias"),
        )
        return {
            **{name: self._read(name) for name in names},
            "transformer.prompt": prompt,
            "transformer.timesteps.polynomials": self._polynomials,
            **self._fuse("transformer.embedder"),
            **self._fuse("transformer.head"),
        }

    def _fuse(self, prefix: str) -> dict[str, Tensor]:
        """The tensors of a module of the fused model and of its submodules."""
        tensors: dict[str, Tensor] = {}
        for name, module in self.model.get_submodule(prefix).named_modules(prefix=prefix):
            if isinstance(module, LoraLinear):
                tensors |= {f"{name}.{key}": tensor for key, tensor in self._fuse_linear(module).items()}
            elif isinstance(module, HeadNorms):
                for key, layer in zip(("query", "key"), module.sources, strict=True):
                    tensors[f"{name}.{key}"] = self._layer(layer, "weight")
            if isinstance(module, AdaLN):
                sources = [(self._layer(s, "weight"), self._layer(s, "bias")) for s in module.modulation_sources]
                tensors[f"{name}.modulation"] = module.fuse_modulation(self._curve, sources)
        return tensors

    def _fuse_linear(self, module: LoraLinear) -> dict[str, Tensor]:
        plan, layers = self.model.plan, module.sources
        weights = [self._layer(layer, "weight") for layer in layers]
        biases = torch.cat([self._layer(layer, "bias") for layer in layers])
        merged = [weight + self._lora(layer, plan.base) for weight, layer in zip(weights, layers, strict=True)]
        tensors = {"base.weight": torch.cat(merged), "base.bias": biases}
        for name, delta in module.changes.items():
            prefix = f"changes.{name}"
            if not isinstance(delta, LoraDelta):
                changed = [weight + self._lora(layer, name) for weight, layer in zip(weights, layers, strict=True)]
                tensors |= {f"{prefix}.weight": torch.cat(changed), f"{prefix}.bias": biases}
                continue
            downs = []
            for i, layer in enumerate(layers):
                pairs = [(self._factors(layer, name), 1), (self._factors(layer, plan.base), -1)]
                factors = [(down, sign * up) for pair, sign in pairs if pair for down, up in [pair]]
                if factors:
                    downs.append(torch.cat([down for down, _ in factors]))
                    tensors[f"{prefix}.up.{i}.weight"] = torch.cat([up for _, up in factors], dim=1)
            tensors[f"{prefix}.down.weight"] = torch.cat(downs)
        return tensors

    def _lora(self, layer: str, adapter: str) -> Tensor | int:
        """The product B A that a LoRA adds to a layer's weight; 0 without one."""
        factors = self._factors(layer, adapter)
        return 0 if factors is None else factors[1] @ factors[0]

    def _factors(self, layer: str, adapter: str) -> tuple[Tensor, Tensor] | None:
        """A (rank, in) and scale * B (out, rank) of a LoRA at a layer."""
        config = self.model.plan.adapters.get(adapter)
        if config is None or not config.rank_of(layer):
            return None
        down, up = (self._read(f"transformer.{layer}.lora_{side}.{adapter}.weight") for side in "AB")
        return down, config.scale * self._rotated(layer, up)

    def _layer(self, layer: str, kind: str) -> Tensor:
        return self._rotated(layer, self._read(f"transformer.{layer}.{kind}"))

    def _rotated(self, layer: str, tensor: Tensor) -> Tensor:
        """Reorder the outputs of each head of queries and keys: even ones first (`blocks.rotate`)."""
        if not re.fullmatch(ROTATED, layer):
            return tensor
        heads = tensor.unflatten(0, (-1, self.model.configs["transformer"]["attention_head_dim"]))
        return torch.cat((heads[:, ::2], heads[:, 1::2]), dim=1).flatten(0, 1)

    def _read(self, name: str) -> Tensor:
        return self._source.read(name).float()

    def _embed_timestep(self, pooled: Tensor) -> Callable[[Tensor], Tensor]:
        """The input of all adaLN layers as a function of the timestep: (B,) -> (B, D)."""
        adapted = self._source.model
        kind, name = type(adapted.transformer.time_text_embed), "transformer.time_text_embed."
        config = adapted.transformer.config
        width = config.num_attention_heads * config.attention_head_dim
        embed = kind(embedding_dim=width, pooled_projection_dim=config.pooled_projection_dim)
        embed.load_state_dict({key: self._read(name + key) for key in embed.state_dict()})
        guidance = [rounded_guidance(adapted.settings.timestep_dtype)] if config.guidance_embeds else []
        return lambda timesteps: F.silu(embed(timesteps.float(), *guidance, pooled.float()))

    def _check_targets(self, adapters: Mapping[str, LoraSpec]) -> None:
        for name, module in self._source.model.transformer.named_modules():
            layer = name.removesuffix(".base_layer")
            if isinstance(module, nn.Linear) and re.fullmatch(CONSTANT, layer):
                for adapter, config in adapters.items():
                    if config.rank_of(layer):
                        raise CheckpointError(
                            f"{adapter}: expected no LoRA of layers that become constants, got one of {layer}"
                        )


def fuse(source: Source, precision: str, *, device: torch.device, dtype: torch.dtype) -> FusedLotus2:
    """The whole model in memory, ready to run. Beside it only one part is in memory at a time.

    Raises MemoryShortageError if the device has too little memory for it.
    """
    fusing = Fusion(source, precision)
    model, state = fusing.model, dict[str, Tensor]()
    dtype_of = model.dtype_of(dtype)
    bytes_of = {name: t.numel() * (dtype_of(name) or t.dtype).itemsize for name, t in model.state_dict().items()}
    require_memory(device, sum(bytes_of.values()), "the model")
    progress = ProgressLog("fusing part", len(fusing.names))
    for part in fusing.parts():
        state |= {name: tensor.to(device, dtype_of(name)) for name, tensor in fusing.store(part).items()}
        progress.step()
    assign_weights(model, state, device, dtype_of)
    return model.eval().requires_grad_(False)
