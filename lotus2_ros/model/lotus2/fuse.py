"""Fusion: from the released or trained weights to those of the fused model, part by part.

Merging LoRAs, fusing layers and tabulating the modulation do not change the function; in float32 the results differ by
rounding only. Each part is read, fused and handed on before the next one, so the model may be larger than the memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lotus2_ros.model.layers.adaln import AdaLN, fit_curve
from lotus2_ros.model.layers.linear import store_linear
from lotus2_ros.model.layers.lora import LoraDelta, LoraLinear
from lotus2_ros.model.lotus2.base import CORE, FusedPlan, adapter_name
from lotus2_ros.model.lotus2.blocks import HeadNorms
from lotus2_ros.model.lotus2.conditioning import embed_timestep, rounded_guidance
from lotus2_ros.model.lotus2.fused import FusedLotus2
from lotus2_ros.model.lotus2.source import Source, linear_layers
from lotus2_ros.model.memory import require_memory
from lotus2_ros.model.progress import ProgressLog
from lotus2_ros.model.weights import CheckpointError, assign_weights, bytes_of

ROTATED = r".*\.(to_[qk]|add_[qk]_proj|norm_(added_)?[qk])"
# Layers that are fused into constants. A LoRA must not adapt them.
CONSTANT = r"time_text_embed\..*|context_embedder|norm_out\.linear|.*\.norm1?(_context)?\.linear"


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
        self._check_targets()
        self._prompt, pooled = source.embed_prompt()
        highest = float(source.configs["scheduler"]["num_train_timesteps"])
        self._polynomials, self._curve = fit_curve(self._embedding(pooled.float()), highest)
        tasks = source.settings.tasks
        degrees, rank = self._polynomials.shape
        plan = FusedPlan(adapter_name(CORE, tasks[0]), source.adapters, precision, tasks, (degrees, rank))
        with torch.device("meta"):
            self.model = FusedLotus2(
                source.configs,
                plan,
                source.settings,
                prompt_tokens=source.prompt_tokens,
                metadata=source.metadata,
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
        names = [name for name in self.model.state_dict() if name.startswith(("continuity.", "uncertainty."))]
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

    def _embedding(self, pooled: Tensor) -> Callable[[Tensor], Tensor]:
        """The input of all adaLN layers as a function of the timestep: (B,) -> (B, D)."""
        source = self._source
        guided = source.configs["transformer"]["guidance_embeds"]
        guidance = rounded_guidance(source.settings.timestep_dtype) if guided else None

        def read(name: str) -> Tensor:
            return self._read(f"transformer.time_text_embed.{name}")

        return lambda timesteps: embed_timestep(timesteps, guidance, pooled, read)

    def _check_targets(self) -> None:
        for layer in linear_layers(self._source.configs["transformer"]):
            for adapter, lora in self._source.adapters.items():
                if re.fullmatch(CONSTANT, layer) and lora.rank_of(layer):
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
    require_memory(device, bytes_of(model.state_dict(), dtype_of), "the model")
    progress = ProgressLog("fusing part", len(fusing.names))
    for part in fusing.parts():
        state |= {name: tensor.to(device, dtype_of(name)) for name, tensor in fusing.store(part).items()}
        progress.step()
    assign_weights(model, state, device, dtype_of)
    return model.eval().requires_grad_(False)
