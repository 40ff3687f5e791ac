"""The choice of an engine for a model: torch, or OpenVINO on Intel and AMD CPUs."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch

from lotus2_ros.config import ModelConfig
from lotus2_ros.model.layers.linear import FLOATS
from lotus2_ros.model.layers.precision import multiplies_bfloat16, resolve_device, resolve_dtype
from lotus2_ros.model.torch_model import InferenceModel

OPENVINO, ONNXRUNTIME = "openvino", "onnxruntime"
INSTALL = "pip install openvino"
# Compiled stages hold weights of their own, so `auto` compiles small models only.
COMPILED_BYTES = 1 << 30


@dataclass(frozen=True)
class EngineChoice:
    """The engine that runs a model, its device and its dtype.

    name: torch, openvino, or auto, the faster of the two. device: of the weights and of everything that torch computes.
    openvino_device: where OpenVINO runs, by its own name. dtype: as it was asked for. threads: of the CPU, 0 for
    torch's default.
    """

    name: str
    device: torch.device
    openvino_device: str = "CPU"
    dtype: str = "auto"
    threads: int = 0

    @classmethod
    def of(cls, config: ModelConfig, *, live: bool = False) -> EngineChoice:
        """The engine that the parameters ask for.

        live: for a camera. `auto` is torch otherwise: engines round differently, and recordings are to give the same
        every time and on every worker. Raises ValueError if engine and device do not go together, or if OpenVINO is
        asked for and is missing.
        """
        engine, device, dtype, threads = config.engine, config.device, config.dtype, config.threads
        if engine == ONNXRUNTIME:
            raise ValueError("model.engine onnxruntime: expected a folder that `lotus2 export` wrote as model.path")
        kind, _, openvino_device = device.partition(":")
        if kind == OPENVINO:
            if engine not in ("auto", OPENVINO):
                raise ValueError(f"expected model.engine openvino for model.device {device}, got {engine}")
            engine = OPENVINO
        if engine == OPENVINO:
            if kind == "cuda":
                raise ValueError(f"model.engine openvino: expected model.device cpu or openvino:<device>, got {device}")
            if not has_openvino():
                raise ValueError(f"model.engine openvino needs the package openvino; install it: {INSTALL}")
            return cls(engine, torch.device("cpu"), openvino_device or "CPU", dtype, threads)
        if not (live and config.compile):
            engine = "torch"
        return cls(engine, resolve_device(device), "CPU", dtype, threads)

    @property
    def weight_dtype(self) -> str:
        """The dtype to load the weights in. OpenVINO takes float32 and rounds to what it computes in by itself."""
        return "float32" if self.name == OPENVINO else self.dtype

    def tries_openvino(self, model: InferenceModel) -> bool:
        """Whether the model is to be compiled with OpenVINO, for good or to see whether that is faster."""
        if self.name != "auto":
            return self.name == OPENVINO
        return (
            model.device.type == "cpu"
            and model.dtype is torch.float32
            and model.linear_precision in FLOATS
            and sum(parameter.nbytes for parameter in model.parameters()) <= COMPILED_BYTES
            and has_openvino()
        )

    @property
    def openvino_dtype(self) -> torch.dtype:
        """The dtype in which OpenVINO multiplies; its results are float32, so a depth does not come in steps of it."""
        if self.dtype != "auto":
            return resolve_dtype(self.dtype, self.device)
        has_bfloat16 = self.openvino_device == "CPU" and multiplies_bfloat16(torch.device("cpu"))
        return torch.bfloat16 if has_bfloat16 else torch.float32


def has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None
