"""The models that the GPU's bench compares: how each is made, what it needs, and the work of its frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.lotus_models import FAMILIES, build_lotus, make_lotus1
from benchmarks.models import TASKS, Shape, build_fused, make_fused, make_plain
from benchmarks.rows import TASK, Work, count_work
from lotus2_ros.model.engine.flops import weight_bytes
from lotus2_ros.model.engine.memory import frame_bytes
from lotus2_ros.model.interface import GeometryModel
from lotus2_ros.model.lotus.lotus import Lotus
from lotus2_ros.model.lotus2.fused import FusedLotus2
from lotus2_ros.model.torch_model import InferenceModel

PLAIN = "plain"  # as public code runs Lotus-2; the others are a precision of Lotus-2, or Lotus-D or Lotus-G


@dataclass
class Variants:
    """shape: of Lotus-2. lotus1: configs of the vae and unet of Lotus-D and Lotus-G."""

    device: torch.device
    shape: Shape
    lotus1: Mapping[str, Mapping[str, Any]]
    _work: dict[tuple[str, tuple[int, int]], Work] = field(default_factory=dict)

    def needed(self, variant: str, size: tuple[int, int]) -> float:
        """Bytes of a variant's weights, of all tasks, and of its frames of a size (width, height).

        Plain has one task, and as many weights as the fused model has with two.
        """
        model = self._on_meta(variant).to(torch.bfloat16)
        return weight_bytes(model) + frame_bytes(model, size[1], size[0])

    def work(self, variant: str, size: tuple[int, int]) -> Work:
        """The work of a frame of a size (width, height), which is the same in every precision."""
        key = variant if variant in FAMILIES else PLAIN, size
        if key not in self._work:
            self._work[key] = count_work(self._on_meta(key[0]), size)
        return self._work[key]

    def make(self, variant: str) -> GeometryModel:
        """A random model on the device, not optimized."""
        if variant in FAMILIES:
            return make_lotus1(variant, self.lotus1, TASKS, self.device, torch.bfloat16)
        if variant == PLAIN:
            return make_plain(self.shape, TASK, self.device, torch.bfloat16)
        return make_fused(self.shape, variant, self.device, torch.bfloat16)

    def _on_meta(self, variant: str) -> InferenceModel:
        with torch.device("meta"):
            if variant in FAMILIES:
                return build_lotus(variant, self.lotus1, TASKS)
            return build_fused(self.shape, "bfloat16" if variant == PLAIN else variant)


def core_bytes(model: Any) -> int:
    """Bytes of one task's core predictor, which each pass reads."""
    if isinstance(model, FusedLotus2):
        return weight_bytes(model, tasks=(TASK,), sharpeners=False)
    network = model.unets[TASK] if isinstance(model, Lotus) else model.transformer
    return sum(tensor.nbytes for tensor in network.parameters())
