"""The error of a precision: a small image passes through the network in float32 and with the stored weights.

Both passes run block by block during the fusion, so only one float32 block is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from lotus2_ros.model.layers.adaln import AdaLN
from lotus2_ros.model.layers.precision import dtype_name, resolve_dtype
from lotus2_ros.model.lotus2 import flux
from lotus2_ros.model.lotus2.base import CORE, CORE_TIMESTEP, adapter_name
from lotus2_ros.model.lotus2.conditioning import rounded_timestep
from lotus2_ros.model.lotus2.fused import FusedLotus2
from lotus2_ros.model.weights import CheckpointError

HEIGHT, WIDTH = 96, 128
# The parts that stay in memory.
ENDS = ("vae", "prior", "ends")


class ProbeStream:
    """One pass of all stages of all tasks, as a batch, through a model that is given block by block."""

    def __init__(self, model: FusedLotus2, precision: str, dtype: torch.dtype, device: torch.device) -> None:
        plan = replace(model.plan, precision=precision)
        self._model = model.planned(plan)
        self._dtype_of, self._device = self._model.dtype_of(dtype), device
        self.adapters = (plan.base, *plan.deltas)
        self.tokens = torch.empty(0)

    @torch.no_grad()
    def take(self, part: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep one of the ends, or run a block. Raises CheckpointError if its output is not finite."""
        model = self._model
        state = {name: tensor.to(self._device, self._dtype_of(name)) for name, tensor in tensors.items()}
        model.load_state_dict(state, strict=False, assign=True)
        if part in ENDS:
            return
        if not self.tokens.numel():
            self._enter()
        block = cast(AdaLN, model.transformer.get_submodule(part))
        modulation = (self._timesteps() @ block.modulation).to(self.tokens.dtype)
        rotary = model.transformer.rotary(HEIGHT // model.multiple, WIDTH // model.multiple)
        self.tokens = block(self.tokens, modulation, rotary, self.adapters)
        block.to("meta")
        if not bool(self.tokens.isfinite().all()):
            raise CheckpointError(f"{part}: activations in {model.plan.precision} have NaN or infinite values")

    @torch.no_grad()
    def leave(self) -> dict[str, Tensor]:
        """The results: each adapter's latent (a velocity for the sharpeners), and decoded `disparity` and `normals`."""
        model = self._model
        head = model.transformer.head
        patches = head(self.tokens, (self._timesteps() @ head.modulation).to(self.tokens.dtype), self.adapters)
        latents = flux.unpack(patches, HEIGHT // model.vae_factor, WIDTH // model.vae_factor)
        results = dict(zip(self.adapters, latents.split(1), strict=True))
        for task in model.tasks:
            decoded = model.decode(model.continuity[task](results[adapter_name(CORE, task)]))
            results["disparity" if task == "depth" else task] = (
                decoded.mean(dim=1) if task == "depth" else decoded * 2 - 1
            )
        return {name: tensor.float() for name, tensor in results.items()}

    def _enter(self) -> None:
        patches = flux.pack(self._model.encode(picture().to(self._device)))
        self.tokens = self._model.transformer.enter(patches.expand(len(self.adapters), -1, -1), self.adapters)

    def _timesteps(self) -> Tensor:
        """(adapters, K): for a core predictor its timestep, for a sharpener the first one."""
        first = float(self._model.scheduler.num_train_timesteps)
        timesteps = [CORE_TIMESTEP if name.startswith(CORE) else first for name in self.adapters]
        seen = rounded_timestep(torch.tensor(timesteps, device=self._device), self._model.settings.timestep_dtype)
        return self._model.transformer.timesteps(seen)


class Probe:
    """A float32 stream, and one with the stored weights in a compute dtype."""

    def __init__(self, model: FusedLotus2, device: torch.device, dtype: torch.dtype) -> None:
        self._compute = dtype_name(dtype)
        self._exact = ProbeStream(model, "float32", torch.float32, device)
        self._stored = ProbeStream(model, model.plan.precision, dtype, device)
        self.device = device

    @staticmethod
    def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
        """The dtype in which a model of this precision is run on the device."""
        return torch.float32 if precision == "float32" else resolve_dtype("auto", device)

    def take(self, part: str, exact: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
        self._exact.take(part, exact)
        self._stored.take(part, stored)

    @property
    def state(self) -> dict[str, Tensor]:
        """The activations of both streams, on the CPU."""
        return {"exact": self._exact.tokens.cpu(), "stored": self._stored.tokens.cpu()}

    @state.setter
    def state(self, state: Mapping[str, Tensor]) -> None:
        self._exact.tokens, self._stored.tokens = (state[name].to(self.device) for name in ("exact", "stored"))

    def errors(self) -> dict[str, str | float]:
        """The compute dtype, and the relative root mean square error of each result."""
        exact, stored = self._exact.leave(), self._stored.leave()
        relative = {name: float((stored[name] - exact[name]).norm() / exact[name].norm()) for name in exact}
        for name, error in relative.items():
            if not torch.tensor(error).isfinite():
                raise CheckpointError(f"{name}: the result has NaN or infinite values")
        return {"compute": self._compute, **{name: float(f"{error:.3g}") for name, error in relative.items()}}


def picture() -> Tensor:
    """The test image, (1, 3, H, W) in [-1, 1]: a checkered floor, a sky and a disk."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, HEIGHT), torch.linspace(-1, 1, WIDTH), indexing="ij")
    floor = torch.sign(torch.sin(6 * x / (y + 0.3).clamp_min(0.05)) * torch.sin(4 / (y + 0.3).clamp_min(0.05)))
    distance = ((x - 0.3) ** 2 + (y - 0.1) ** 2).sqrt()
    sky = torch.stack((0.2 - 0.5 * y, 0.1 - 0.7 * y, -0.9 * y))
    image = torch.where(y > -0.2, 0.6 * floor * torch.tensor([1.0, 0.8, 0.6])[:, None, None], sky)
    thing = torch.stack((1 - 3 * distance, 0.2 - 2 * distance, -0.5 + x))
    return torch.where(distance < 0.35, thing, image)[None].clamp(-1, 1)
