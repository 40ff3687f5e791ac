"""Fused Lotus-2, the form for inference: constants precomputed, all stages and tasks on one base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lotus2_ros.model.layers.linear import kept_dtypes
from lotus2_ros.model.lotus2 import flux
from lotus2_ros.model.lotus2.base import CORE, CORE_TIMESTEP, SHARPENER, FusedPlan, Lotus2, adapter_name, moved
from lotus2_ros.model.lotus2.blocks import Rotary
from lotus2_ros.model.lotus2.conditioning import rounded_timestep
from lotus2_ros.model.lotus2.fused_flux import FusedFlux
from lotus2_ros.model.manifest import ModelSettings
from lotus2_ros.model.torch_model import InferenceModel


class FusedLotus2(Lotus2, InferenceModel):
    """A `Lotus2` for inference. configs: by component, as in the manifest."""

    def __init__(
        self,
        configs: Mapping[str, Mapping[str, Any]],
        plan: FusedPlan,
        settings: ModelSettings,
        *,
        prompt_tokens: int,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(configs, settings.changed(tasks=plan.tasks), metadata)
        self.plan = plan
        self.configs = configs
        highest = float(self.scheduler.num_train_timesteps)
        self.transformer = FusedFlux(configs["transformer"], plan, prompt_tokens, highest)

    @property
    def dtype(self) -> torch.dtype:
        return self.transformer.prompt.dtype

    @property
    def prompt_tokens(self) -> int:
        return self.transformer.prompt.shape[1]

    @property
    def linear_precision(self) -> str:
        return self.plan.precision

    def compiled_parts(self) -> Mapping[nn.Module, bool]:
        # One compiled block serves all blocks of its kind; after a second image size it is compiled for any size. The
        # VAE is compiled for each size, because reductions over the whole image are slow with dynamic shapes.
        convolutions = [self.vae.encoder, self.vae.decoder, *([self.prior] if self.prior else [])]
        return {**dict.fromkeys(self.transformer.blocks, True), **dict.fromkeys(convolutions, False)}

    def on_meta(self, tasks: Sequence[str], precision: str = "float32", sharpeners: bool = True) -> FusedLotus2:
        adapters = {
            name: adapter
            for name, adapter in self.plan.adapters.items()
            if sharpeners or not name.startswith(SHARPENER)
        }
        chosen = tuple(task for task in self.tasks if task in tasks)
        return self.planned(replace(self.plan, precision=precision, tasks=chosen, adapters=adapters))

    def planned(self, plan: FusedPlan) -> FusedLotus2:
        """The same network with another plan, on the meta device."""
        with torch.device("meta"):
            twin = FusedLotus2(
                self.configs, plan, self.settings, prompt_tokens=self.prompt_tokens, metadata=self.metadata
            )
        return twin.eval().requires_grad_(False)

    @property
    def precision(self) -> str:
        return super().precision if self.plan.precision in ("float32", "bfloat16") else self.plan.precision

    def dtype_of(self, dtype: torch.dtype) -> Callable[[str], torch.dtype | None]:
        plain = super().dtype_of(dtype)
        kept = kept_dtypes(self)
        return lambda name: None if name in kept or name.endswith((".modulation", ".polynomials")) else plain(name)

    def has_sharpener(self, task: str) -> bool:
        return adapter_name(SHARPENER, task) in self.plan.deltas

    def predict(self, latent: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        if not self.batched or len(tasks) == 1:
            return super().predict(latent, tasks)
        for task in tasks:
            self.require(CORE, task)
        names = tuple(adapter_name(CORE, task) for task in tasks)
        batch = self._pass(latent.expand(len(tasks), -1, -1, -1), self._modulation(CORE_TIMESTEP), names)
        parts = zip(tasks, batch.split(1), strict=True)
        return {task: self.carry_features(self.continuity[task](one), latent) for task, one in parts}

    def transform(self, latent: Tensor, stage: str, task: str, timestep: float | Tensor) -> Tensor:
        return self._pass(latent, self._modulation(timestep), (adapter_name(stage, task),))

    def euler_step(self, latent: Tensor, task: str, timestep: Tensor, delta: Tensor) -> Tensor:
        self.require(SHARPENER, task)
        modulation = self.transformer.modulation(timestep).to(self.dtype)
        return moved(latent, self._pass(latent.to(self.dtype), modulation, (adapter_name(SHARPENER, task),)), delta)

    def schedule(self, steps: int, height: int, width: int) -> tuple[list[float], list[float]]:
        sigmas = self.scheduler.sigmas(steps, height * width // 4)
        timesteps = torch.tensor(sigmas[:-1]) * self.scheduler.num_train_timesteps
        return sigmas, rounded_timestep(timesteps, self.settings.timestep_dtype).tolist()

    def _pass(self, latent: Tensor, modulation: Tensor, adapters: tuple[str, ...]) -> Tensor:
        height, width = latent.shape[2:]
        rows, columns = height // 2, width // 2
        rotary: Rotary = self.cached(("rotary", rows, columns), lambda: self.transformer.rotary(rows, columns))

        def run(latent: Tensor, modulation: Tensor, *rotary: Tensor) -> Tensor:
            patches = self.transformer(flux.pack(latent), modulation, rotary, adapters)
            return flux.unpack(patches, height, width)

        return self.executor(("transform", adapters), run, latent, modulation, *rotary)

    def _modulation(self, timestep: float | Tensor) -> Tensor:
        """The modulation of all blocks at a timestep, cached if that is a number."""
        if isinstance(timestep, Tensor):
            return self._compute_modulation(timestep)
        return self.cached(
            ("modulation", timestep),
            lambda: self._compute_modulation(torch.tensor([timestep], device=self.device)),
        )

    def _compute_modulation(self, timesteps: Tensor) -> Tensor:
        return self.transformer.modulation(rounded_timestep(timesteps, self.settings.timestep_dtype)).to(self.dtype)
