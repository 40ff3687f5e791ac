"""The networks that a Lotus-2 training run can begin with: a small one from scratch, and FLUX.1-dev."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from lotus2_ros.model.layers.precision import dtype_named
from lotus2_ros.model.lotus2.base import CORE, SHARPENER
from lotus2_ros.model.lotus2.bundle import WEIGHTS, save_bundle
from lotus2_ros.model.lotus2.continuity import LocalContinuity
from lotus2_ros.model.lotus2.manifest import TrainableManifest
from lotus2_ros.model.lotus2.trainable import EMBEDDINGS, LORA_TARGETS, TrainableLotus2, is_base
from lotus2_ros.model.manifest import MANIFEST, ModelSettings, Task
from lotus2_ros.model.trainable import STORED, Count, NetworkConfig, SmallNetwork, TrainingStage, no_single_blocks
from lotus2_ros.model.weights import assign_weights, read_weights, stored_state

# A small base learns its second task best when the LoRA adapts every linear layer of the blocks and the output.
CORE_TARGETS = LORA_TARGETS + r"|single_transformer_blocks\.\d+\.(proj_mlp|proj_out)|proj_out"
FLOWS_AND_STEPS = ("deterministic_flow", "single_step", "end_to_end", "sharpener", "sharpener_end_to_end")


class ScratchNetwork(SmallNetwork):
    """A small FLUX network from scratch.

    patch: side of the square of latent pixels that is one token (FLUX: 2). vae: a bundle whose VAE the training begins
    with, in place of a stage that trains one.
    """

    objectives: ClassVar[tuple[str, ...]] = ("autoencoder", "stochastic_flow", *FLOWS_AND_STEPS, "uncertainty")

    source: Literal["scratch"]
    heads: Count
    head_size: Count
    rotary_axes: tuple[int, int, int]
    double_blocks: Count
    single_blocks: Count
    prompt_tokens: Count
    core_rank: Count
    sharpener_rank: Count
    sharpener_steps: Count
    uncertainty_width: Count = 64
    process_by_area: bool = False
    guided: bool = False
    sharpen_by_default: bool = True
    patch: Literal[1, 2] = 2
    vae: Path | None = None

    def check(self, tasks: Sequence[Task], stages: Sequence[TrainingStage]) -> None:
        depths = [stage.single_blocks or self.single_blocks for stage in stages if stage.objective.part() != "vae"]
        if depths != sorted(depths) or max(depths, default=0) > self.single_blocks:
            raise ValueError(
                f"expected single_blocks that grow from stage to stage to at most {self.single_blocks}, got {depths}"
            )

    def build(self, tasks: tuple[Task, ...], stages: Sequence[TrainingStage], device: torch.device) -> TrainableLotus2:
        """The base is the first task's core predictor; every other stage and task is a LoRA on it."""
        given = self.latent_channels * self.patch**2
        taken = given + (self.prior.channels * self.patch**2 if self.prior else 0)
        beside = any(stage.objective.kind == "stochastic_flow" for stage in stages)  # takes the image beside the noise
        transformer = {
            "patch_size": 1,
            "in_channels": given + taken if beside else taken,
            "out_channels": given,
            "num_layers": self.double_blocks,
            "num_single_layers": self.single_blocks,
            "attention_head_dim": self.head_size,
            "num_attention_heads": self.heads,
            "joint_attention_dim": 16,
            "pooled_projection_dim": 16,
            "guidance_embeds": True,
            "axes_dims_rope": self.rotary_axes,
        }
        stored = self.model_dump(include=set(ModelSettings.model_fields))
        scheduler = {"num_train_timesteps": 10, "shift": 1.0, "use_dynamic_shifting": False}
        configs: dict[str, Any] = {"vae": self.vae_config(), "transformer": transformer, "scheduler": scheduler}
        if self.prior is not None:
            configs["prior"] = self.prior.config(self.patch)
        if any(stage.objective.part() == "uncertainty" for stage in stages):
            configs["uncertainty"] = {"width": self.uncertainty_width}
        model = TrainableLotus2.from_config(
            configs,
            ModelSettings(tasks=tasks, antialias=True, **stored),
            prompt_tokens=self.prompt_tokens,
        )
        if model.prior is not None and self.prior is not None:
            self.prior.read_weights(model.prior)
        first = min((stage.single_blocks or self.single_blocks for stage in stages), default=self.single_blocks)
        for block in model.transformer.single_transformer_blocks[first:]:
            for parameter in block.proj_out.parameters():  # a block adds nothing until it is trained
                torch.nn.init.zeros_(parameter)
        for task in tasks[1:]:
            model.add_adapter(CORE, task, self.core_rank, targets=CORE_TARGETS)
        if any(stage.objective.part() == "sharpener" for stage in stages):
            for task in tasks:
                model.add_adapter(SHARPENER, task, self.sharpener_rank)
        if self.vae is not None:
            begin_with_vae(model, self.vae)
        return model.to(device)

    def save(self, model: TrainableLotus2, folder: Path, metadata: Mapping[str, Any]) -> None:
        save_bundle(model, folder, metadata=metadata, dtype=STORED)


@torch.no_grad()
def begin_with_vae(model: TrainableLotus2, folder: Path) -> None:
    """Copy the VAE of a bundle, and the scale of its latents. Raises ValueError if it is of another design."""
    given, vae = read_weights(folder / WEIGHTS), TrainableManifest.read(folder / MANIFEST).components.vae
    model.vae.scale_latents(shift=vae.shift_factor, scale=vae.scaling_factor)
    for name, own in stored_state(model).items():
        if not name.startswith("vae."):
            continue
        if name not in given or given[name].shape != own.shape:
            raise ValueError(f"{folder}: expected a bundle with a VAE of the network's design, got another {name}")
        own.copy_(given[name])


class FluxNetwork(NetworkConfig):
    """FLUX.1-dev, frozen, with new LoRAs of each task's rank.

    flux: its folder in diffusers' layout. lotus2: folder of `lotus-2_*` files to start from, with a core predictor at
    least.
    """

    objectives: ClassVar[tuple[str, ...]] = FLOWS_AND_STEPS

    source: Literal["released"]
    flux: Path
    lotus2: Path | None = None
    ranks: dict[Task, Count]
    base_dtype: Literal["float32", "bfloat16"]

    def check(self, tasks: Sequence[Task], stages: Sequence[TrainingStage]) -> None:
        no_single_blocks(stages)
        if missing := set(tasks) - self.ranks.keys():
            raise ValueError(f"expected network.ranks for every task, got none for {', '.join(sorted(missing))}")
        if stages and stages[0].objective.part() == "sharpener" and self.lotus2 is None:
            raise ValueError(
                "expected a trained core before the sharpener, got none; set network.lotus2 or add a stage for the core"
            )
        if self.base_dtype == "bfloat16" and any(stage.mixed_precision == "no" for stage in stages):
            raise ValueError("expected mixed_precision: bf16 in every stage, because the base is in bfloat16, got no")

    def build(self, tasks: tuple[Task, ...], stages: Sequence[TrainingStage], device: torch.device) -> TrainableLotus2:
        """The base in `base_dtype`; LoRAs and continuity modules in float32, from `lotus2` or untrained.

        The empty prompt is embedded first, so that the text encoders are freed before the rest is read. Raises
        CheckpointError that names file and key.
        """
        from lotus2_ros.model.lotus2.released import load_adapters, open_flux

        source = open_flux(self.flux, tasks=tasks, device=device)
        model = TrainableLotus2.on_meta(source)
        state = dict(zip(EMBEDDINGS, source.embed_prompt(), strict=True))
        for task in tasks:
            untrained = LocalContinuity(model.vae.config.latent_channels).state_dict()
            state |= {f"continuity.{task}.{key}": tensor for key, tensor in untrained.items()}
        state |= {name: source.read(name) for name in stored_state(model) if name not in state}
        base = dtype_named(self.base_dtype)
        assign_weights(model, state, device, lambda name: base if is_base(name) else torch.float32)
        sharpened = any(stage.objective.part() == "sharpener" for stage in stages)
        for task in tasks:
            for stage in (CORE, SHARPENER) if sharpened else (CORE,):
                model.add_adapter(stage, task, self.ranks[task])
        for name, parameter in model.named_parameters():
            if not is_base(name):  # PEFT makes them in the base's dtype, in which small steps would be lost
                parameter.data = parameter.data.float()
        if self.lotus2 is not None:
            load_adapters(model, self.lotus2)
        return model

    def save(self, model: Any, folder: Path, metadata: Mapping[str, Any]) -> None:
        """The LoRAs and continuity modules alone, in the layout in which Lotus-2 is released."""
        from lotus2_ros.model.lotus2.released import save_adapters

        save_adapters(model, folder)
