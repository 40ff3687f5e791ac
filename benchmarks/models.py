"""Models to measure: random ones of Lotus-2's true size or tiny, and models run as the public code runs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from lotus2_ros.model.layers.linear import FloatLinear, QuantizedLinear, store_linear
from lotus2_ros.model.layers.lora import LoraLinear, LoraSpec
from lotus2_ros.model.lotus2 import flux
from lotus2_ros.model.lotus2.base import CORE, SHARPENER, FusedPlan, adapter_name
from lotus2_ros.model.lotus2.blocks import HeadNorms
from lotus2_ros.model.lotus2.conditioning import GUIDANCE
from lotus2_ros.model.lotus2.fused import FusedLotus2
from lotus2_ros.model.lotus2.trainable import LORA_TARGETS, TrainableLotus2
from lotus2_ros.model.manifest import ModelSettings
from lotus2_ros.model.weights import assign_weights

TASKS = ("depth", "normals")


@dataclass(frozen=True)
class Shape:
    """All that the work of a model depends on."""

    configs: Mapping[str, Mapping[str, Any]]  # of diffusers' vae, transformer and scheduler
    prompt_tokens: int
    ranks: Mapping[str, int]  # of the LoRAs, by task
    timesteps: tuple[int, int]  # as in `FusedPlan`


VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 16,
    "norm_num_groups": 32,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
TRANSFORMER = {
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
    "axes_dims_rope": (16, 56, 56),
}
SCHEDULER = {"num_train_timesteps": 10, "use_dynamic_shifting": True, "shift": 3.0}
FLUX = Shape(
    {"vae": VAE, "transformer": TRANSFORMER, "scheduler": SCHEDULER},
    prompt_tokens=512,
    ranks={"depth": 128, "normals": 256},
    timesteps=(64, 32),
)
TINY = Shape(
    {
        "vae": {**VAE, "block_out_channels": (16, 16, 32, 32), "layers_per_block": 1, "norm_num_groups": 4},
        "transformer": {
            **TRANSFORMER,
            "num_layers": 2,
            "num_single_layers": 2,
            "attention_head_dim": 32,
            "num_attention_heads": 4,
            "joint_attention_dim": 64,
            "pooled_projection_dim": 32,
            "axes_dims_rope": (8, 12, 12),
        },
        "scheduler": SCHEDULER,
    },
    prompt_tokens=16,
    ranks={"depth": 16, "normals": 16},
    timesteps=(16, 8),
)
PROCESS_RESOLUTION = 1024


def build_fused(shape: Shape, precision: str, tasks: tuple[str, ...] = TASKS) -> FusedLotus2:
    """A model with core predictor and sharpener for each task, its weights whatever the memory holds."""
    adapters = {
        adapter_name(stage, task): LoraSpec(shape.ranks[task], 1.0, LORA_TARGETS)
        for task in tasks
        for stage in (CORE, SHARPENER)
    }
    plan = FusedPlan(adapter_name(CORE, tasks[0]), adapters, precision, tasks, shape.timesteps)
    settings = ModelSettings(tasks=tasks, process_resolution=PROCESS_RESOLUTION)
    return FusedLotus2(shape.configs, plan, settings, prompt_tokens=shape.prompt_tokens)


def make_fused(shape: Shape, precision: str, device: torch.device, dtype: torch.dtype) -> FusedLotus2:
    """The same, its weights random, made on the device itself."""
    torch.manual_seed(0)
    with torch.device(device):
        model = build_fused(shape, precision)
    model.requires_grad_(False)
    generator = torch.Generator(device).manual_seed(0)
    for module in model.transformer.modules():
        if isinstance(module, LoraLinear):
            for layer in module.modules():
                if isinstance(layer, FloatLinear | QuantizedLinear):
                    _randomize_linear(layer, module.precision, generator)
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None and not isinstance(module, FloatLinear | QuantizedLinear):
                tensor.normal_(mean=float(isinstance(module, HeadNorms)), std=0.1, generator=generator)
    _randomize_continuity(model, generator)
    assign_weights(model, model.state_dict(), device, model.dtype_of(dtype))
    return model.eval().requires_grad_(False)


def make_plain(shape: Shape, task: str, device: torch.device, dtype: torch.dtype) -> TrainableLotus2:
    """The same for one task as it is released: unfused, its adapters unmerged, run by diffusers' own forward."""
    torch.manual_seed(0)
    with _default_dtype(dtype), torch.device(device):
        model = TrainableLotus2.from_config(
            shape.configs,
            ModelSettings(tasks=(task,), process_resolution=PROCESS_RESOLUTION),
            prompt_tokens=shape.prompt_tokens,
        )
        for stage in (CORE, SHARPENER):
            model.add_adapter(stage, task, shape.ranks[task])
    model.requires_grad_(False)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:  # zeros as they are made, and a product with zeros may run faster
            parameter.normal_(std=0.02, generator=generator)
    _randomize_continuity(model, generator)
    return run_by_diffusers(model.to(dtype).eval())


def run_by_diffusers(model: TrainableLotus2) -> TrainableLotus2:
    """The model, from now on with diffusers' own forward of the transformer, as the public code calls it.

    The prompt's embeddings are computed once, which the public code does for each image.
    """
    model.transform = MethodType(_transform, model)  # type: ignore[method-assign]
    return model


def _transform(self: TrainableLotus2, latent: Tensor, stage: str, task: str, timestep: float) -> Tensor:
    self.select(stage, task)
    height, width = latent.shape[2:]
    prompt, device = self.conditioner.prompt_embeds, latent.device
    positions = torch.zeros(height // 2, width // 2, 3, device=device, dtype=latent.dtype)
    positions[..., 1] += torch.arange(height // 2, device=device)[:, None]
    positions[..., 2] += torch.arange(width // 2, device=device)
    tokens = self.transformer(
        hidden_states=flux.pack(latent),
        encoder_hidden_states=prompt,
        pooled_projections=self.conditioner.pooled,
        timestep=torch.full((1,), timestep / 1000, device=device, dtype=latent.dtype),
        guidance=torch.full((1,), GUIDANCE, device=device) if self.transformer.config.guidance_embeds else None,
        img_ids=positions.flatten(0, 1),
        txt_ids=torch.zeros(prompt.shape[1], 3, device=device, dtype=latent.dtype),
        return_dict=False,
    )[0]
    return flux.unpack(tokens, height, width)


def _randomize_linear(layer: nn.Module, precision: str, generator: torch.Generator) -> None:
    """Normal weights that keep the size of what passes through, as that precision stores them."""
    state = layer.state_dict()
    columns = getattr(layer, "in_features", state["weight"].shape[1])
    rows = len(state["weight"])
    weight = torch.randn(rows, columns, generator=generator, device=generator.device) / columns**0.5
    bias = torch.randn(rows, generator=generator, device=generator.device) / 10 if "bias" in state else None
    layer.load_state_dict(store_linear(precision, weight, bias))


def _randomize_continuity(model: nn.Module, generator: torch.Generator) -> None:
    for parameter in model.get_submodule("continuity").parameters():
        parameter.data.normal_(std=0.05, generator=generator)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
