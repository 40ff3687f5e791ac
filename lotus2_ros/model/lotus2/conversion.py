"""A released or trained Lotus-2 into a fused bundle: each part is fused, quantized, measured and written."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lotus2_ros.config.precisions import PrecisionName
from lotus2_ros.model.conversion import Conversion, Store
from lotus2_ros.model.lotus2 import FUSED_FORMAT
from lotus2_ros.model.lotus2.bundle import describe_fused, part_file
from lotus2_ros.model.lotus2.fuse import FusedPart, Fusion
from lotus2_ros.model.lotus2.probe import ENDS, Probe
from lotus2_ros.model.lotus2.source import Source
from lotus2_ros.model.memory import is_shortage
from lotus2_ros.model.weights import bytes_of

log = logging.getLogger(__name__)

PROMPT, PROBE = "prompt.safetensors", "probe.safetensors"


class Lotus2Conversion(Conversion):
    """precision: of the transformer's weights; None for bfloat16, or float32 if the files are in float32."""

    def __init__(
        self, source: Source, files: Mapping[str, Path], *, precision: str | None, device: torch.device
    ) -> None:
        self.source, self.files, self.device = source, files, device
        self.precision = precision or _precision_of(source)
        self._fusion: Fusion | None = None
        self._errors: dict[str, Any] = {}

    @property
    def plan(self) -> dict[str, Any]:
        return {
            "format": FUSED_FORMAT,
            "tasks": self.source.settings.tasks,
            "conditioning": self.source.settings.timestep_dtype,
            "precision": self.precision,
            "device": self.device.type,
        }

    @property
    def parts(self) -> list[str]:
        return ["prompt", *self._blank().names]

    @property
    def size(self) -> int:
        model = self._blank().model
        return bytes_of(model.state_dict(), model.dtype_of(self._stored_dtype))

    def convert(self, store: Store) -> Iterator[str]:
        """Where the GPU has too little memory, the CPU goes on."""
        compute = Probe.compute_dtype(self.precision, self.device)
        told: set[str] = set()
        for device in (self.device, torch.device("cpu")):
            try:
                for name in self._convert_on(device, compute, store):
                    if name not in told:
                        told.add(name)
                        yield name
                return
            except RuntimeError as error:
                if device.type == "cpu" or not is_shortage(error):
                    raise
                log.warning("%s has too little memory for this, so the rest runs on the CPU", device)
            torch.cuda.empty_cache()

    def _convert_on(self, device: torch.device, compute: torch.dtype, store: Store) -> Iterator[str]:
        self._fusion = Fusion(replace(self.source, embed_prompt=lambda: self._embed_prompt(store)), self.precision)
        yield "prompt"
        probe, state = Probe(self._fusion.model, device, compute), store.read(PROBE)
        done = 0
        if state is not None:
            probe.state, done = state, int(state["done"])
        for number, name in enumerate(self._fusion.names, start=1):
            if number > done or name in ENDS:
                self._convert_part(self._fusion, name, store, probe)
            if number > done and name not in ENDS:
                # Written after the part itself: a run that continues starts after the part counted here.
                store.write(PROBE, {**probe.state, "done": torch.tensor(number)})
            yield name
        self._errors = probe.errors()

    def manifest(self, sources: Mapping[str, str]) -> dict[str, Any]:
        assert self._fusion is not None, "convert first"
        metadata = {**self.source.metadata, "sources": dict(sources)}
        return describe_fused(self._fusion.model, metadata=metadata, dtype=self._stored_dtype, errors=self._errors)

    @property
    def _stored_dtype(self) -> torch.dtype:
        """Of what is not quantized: FLUX's own dtype."""
        return torch.float32 if self.precision == "float32" else torch.bfloat16

    def _blank(self) -> Fusion:
        """The fusion with a prompt of zeros, for names and shapes."""
        config = self.source.configs["transformer"]
        prompt_embeds = torch.zeros(1, self.source.prompt_tokens, config["joint_attention_dim"])
        blank = prompt_embeds, torch.zeros(1, config["pooled_projection_dim"])
        return Fusion(replace(self.source, embed_prompt=lambda: blank), self.precision)

    def _embed_prompt(self, store: Store) -> tuple[Tensor, Tensor]:
        embedded = store.read(PROMPT)
        if embedded is None:
            embedded = dict(zip(("prompt_embeds", "pooled"), self.source.embed_prompt(), strict=True))
            store.write(PROMPT, embedded)
        return embedded["prompt_embeds"], embedded["pooled"]

    @torch.no_grad()
    def _convert_part(self, fusion: Fusion, name: str, store: Store, probe: Probe) -> None:
        dtype_of = fusion.model.dtype_of(self._stored_dtype)
        part = FusedPart(name, {key: tensor.to(probe.device) for key, tensor in fusion.part(name).tensors.items()})
        stored = {key: tensor.to(probe.device, dtype_of(key)) for key, tensor in fusion.store(part).items()}
        store.write_part(part_file(name), stored)
        probe.take(name, part.tensors, stored)


def _precision_of(source: Source) -> PrecisionName:
    """Not quantized, and not rounded where the files are in float32."""
    return "float32" if source.read("transformer.x_embedder.weight").dtype == torch.float32 else "bfloat16"
