"""The cost of a model: floating point operations of each stage, and bytes of weights, counted on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lotus2_ros.model.torch_model import InferenceModel
from lotus2_ros.model.weights import bytes_of


@dataclass(frozen=True)
class Flops:
    """Floating point operations of a frame's stages; a multiplication and an addition are two.

    `core` and `decode` are of all tasks counted together.
    """

    encode: int
    core: int
    decode: int


def count_frame(model: InferenceModel, height: int, width: int, tasks: Sequence[str] | None = None) -> Flops:
    """From an image of height x width, multiples of `model.multiple`, to some tasks' annotations, by default to all.

    The count does not depend on the precision.
    """
    tasks = model.tasks if tasks is None else tuple(tasks)
    twin = model.on_meta(tasks)
    latent = _latent(twin, height, width)
    answers: list[Tensor] = []
    return Flops(
        encode=_count(lambda: twin.encode(torch.empty(1, 3, height, width, device="meta"))),
        core=_count(lambda: answers.extend(twin.predict(latent, tasks).values())),
        decode=_count(lambda: twin.decode(torch.cat(answers))),
    )


def count_step(model: InferenceModel, height: int, width: int, task: str) -> int:
    """One Euler step of the sharpener."""
    twin = model.on_meta(model.tasks)
    return _count(lambda: twin.sharpen(_latent(twin, height, width), task, steps=1).step())


def weight_bytes(
    model: InferenceModel,
    *,
    precision: str | None = None,
    tasks: Sequence[str] | None = None,
    sharpeners: bool = True,
) -> int:
    """Memory of a model's weights in a precision and for some of its tasks, by default its own.

    Weights that the precision does not quantize count in bfloat16; with precision float32, in float32.
    """
    precision = precision or model.linear_precision
    twin = model.on_meta(model.tasks if tasks is None else tasks, precision, sharpeners)
    dtype_of = twin.dtype_of(torch.float32 if precision == "float32" else torch.bfloat16)
    return bytes_of(twin.state_dict(), dtype_of)


def _latent(model: InferenceModel, height: int, width: int) -> Tensor:
    factor = model.vae_factor
    return torch.empty(1, model.latent_channels, height // factor, width // factor, device="meta")


def _count(run: Callable[[], object]) -> int:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()
