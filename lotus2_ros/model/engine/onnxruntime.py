"""Exported models, run by ONNX Runtime with the best of its providers that is there: TensorRT, CUDA, CPU.

Only the CPU provider is tested.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from lotus2_ros.config import ModelConfig
from lotus2_ros.model.engine.choice import ONNXRUNTIME
from lotus2_ros.model.engine.stored import cache_folder
from lotus2_ros.model.euler import EulerSteps
from lotus2_ros.model.export.manifest import EXPORT, UNCERTAINTY, ExportManifest, Schedule
from lotus2_ros.model.image_size import ImageSizeError, check_image
from lotus2_ros.model.interface import GeometryModel
from lotus2_ros.model.manifest import ModelSettings, choose_tasks
from lotus2_ros.model.noise import draw_noise
from lotus2_ros.model.weights import CheckpointError

log = logging.getLogger(__name__)

TENSORRT, CUDA, CPU = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"
PROVIDERS = {"auto": (TENSORRT, CUDA, CPU), "cpu": (CPU,), "cuda": (TENSORRT, CUDA)}
PRECISIONS = {"fp32": "float32", "fp16": "float16"}
AGAIN = "export the model again"
INSTALL = "pip install onnxruntime, or onnxruntime-gpu for TensorRT and CUDA"


def import_onnxruntime() -> ModuleType:
    """The package. Raises ValueError that says how to install it."""
    try:
        import onnxruntime
    except ImportError:
        raise ValueError(f"an exported model needs the package onnxruntime; install it: {INSTALL}") from None
    return onnxruntime


class GraphSession:
    """A graph, ready to run. providers: name and options, the first that can run a node does."""

    def __init__(self, path: Path, providers: Sequence[tuple[str, dict[str, Any]]], threads: int = 0) -> None:
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # nothing: errors are raised
        # Threads that spin while they wait take the cores from the rest of the node.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=list(providers))
        except Exception as error:  # ONNX Runtime has many types of its own
            reason = " ".join(str(error).split(" : ")[-1].split()) if path.is_file() else "file not found"
            raise CheckpointError(f"{path}: {reason}; {AGAIN}") from None
        self.inputs = {each.name: tuple(each.shape) for each in self._session.get_inputs()}
        self.output = tuple(self._session.get_outputs()[0].shape)
        self.providers: list[str] = self._session.get_providers()

    def __call__(self, *tensors: Tensor) -> Tensor:
        """Float32 tensors on the CPU, in the order of the graph's inputs."""
        arrays = [tensor.contiguous().numpy() for tensor in tensors]
        return torch.from_numpy(self._session.run(None, dict(zip(self.inputs, arrays, strict=True)))[0])


def providers_for(device: str, precision: str) -> list[tuple[str, dict[str, Any]]]:
    """The providers to use for `model.device`, the best first. Raises ValueError if there is none."""
    if device not in PROVIDERS:
        raise ValueError(f"expected model.device auto, cpu or cuda for an exported model, got {device}")
    available = import_onnxruntime().get_available_providers()
    chosen = [name for name in PROVIDERS[device] if name in available]
    if not chosen:
        raise ValueError(f"model.device cuda: this onnxruntime has {', '.join(available)} only; {INSTALL}")
    engines = cache_folder("tensorrt") if TENSORRT in chosen else None
    tensorrt: dict[str, Any] = {"trt_fp16_enable": precision == "fp16"}
    if engines is not None:
        tensorrt |= {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(engines)}
    return [(name, tensorrt if name == TENSORRT else {}) for name in chosen]


class ExportedModel(GeometryModel):
    """A model that `lotus2 export` wrote. Its graphs take images of one size; tensors are float32 on the CPU."""

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "auto",
        tasks: Sequence[str] | None = None,
        threads: int = 0,
        samples: int = 1,
        seed: int = 0,
    ) -> None:
        """tasks: all if None. threads: of the CPU provider, 0 for its own choice. samples and seed: of a generative
        model. Raises CheckpointError that names file and key, and ValueError without onnxruntime."""
        self._manifest = manifest = ExportManifest.of(folder)
        chosen = choose_tasks(manifest.tasks, tasks, folder)
        self.settings = ModelSettings.read(folder / EXPORT).changed(tasks=chosen)
        self.multiple, self.upsampling, self.metadata = manifest.multiple, manifest.upsampling, manifest.metadata
        self._samples, self._seed = (samples if manifest.noise_channels else 1), seed
        providers = providers_for(device, manifest.precision)
        names = ["encode", *(f"core_{task}" for task in chosen), "decode"]
        names += [f"sharpen_{task}" for task in chosen if task in manifest.sharpened]
        names += [UNCERTAINTY] if UNCERTAINTY in manifest.graphs else []
        if missing := [name for name in names if name not in manifest.graphs]:
            raise CheckpointError(f"{folder / EXPORT}: graphs: expected {missing[0]}, got none of that name")
        self._graphs = {name: GraphSession(folder / f"{name}.onnx", providers, threads) for name in names}
        for name, graph in self._graphs.items():
            expected = f"{manifest.graphs[name].inputs} -> {manifest.graphs[name].shape}"
            if (found := f"{graph.inputs} -> {graph.output}") != expected:
                raise CheckpointError(f"{folder / name}.onnx: expected {expected} as in {EXPORT}, got {found}; {AGAIN}")
        used = self._graphs["encode"].providers[0].removesuffix("ExecutionProvider")
        log.info("ONNX Runtime runs %s with its %s provider", self.name, used)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def precision(self) -> str:
        return PRECISIONS[self._manifest.precision]

    def process_size(self, height: int, width: int, resolution: int) -> tuple[int, int]:
        """The size of the export. Raises ImageSizeError for images of another shape, which would be distorted."""
        own_height, own_width = self._manifest.size
        distortion = abs(math.log(width * own_height / (height * own_width)))
        if distortion > self.multiple / min(own_height, own_width):  # sides are rounded to multiples
            raise ImageSizeError(
                f"{self.name} was exported for images of the shape of {own_width}x{own_height}, got {width}x{height}; "
                "export it again with another --size"
            )
        return own_height, own_width

    def encode(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        check_image(image, self.multiple)
        if generator is not None:
            raise ValueError("an exported model takes the mode of the posterior; expected model.posterior mode")
        return self._batched("encode", image)

    def predict(self, latent: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        for task in tasks:
            self.require_task(task)
        if self._manifest.noise_channels:
            noise = draw_noise((1, self._manifest.noise_channels, *latent.shape[2:]), self._samples, self._seed)
            latent = torch.cat((latent.expand(self._samples, -1, -1, -1), noise), dim=1)
        return {task: self._batched(f"core_{task}", latent) for task in tasks}

    def decode(self, latent: Tensor) -> Tensor:
        return self._batched("decode", latent)

    @property
    def has_uncertainty(self) -> bool:
        return UNCERTAINTY in self._graphs

    def predict_uncertainty(self, latent: Tensor) -> Tensor:
        return self._batched(UNCERTAINTY, latent)

    def has_sharpener(self, task: str) -> bool:
        return task in self._manifest.sharpened

    def sharpen(self, latent: Tensor, task: str, steps: int | None = None) -> EulerSteps:
        self.require_task(task)
        if not self.has_sharpener(task):
            return super().sharpen(latent, task, steps)
        number = self.settings.sharpener_steps if steps is None else steps
        schedules = self._manifest.schedules
        if str(number) not in schedules:
            raise ValueError(f"expected 1 to {len(schedules)} sharpener steps, got {number}")
        schedule = schedules[str(number)]
        return EulerSteps(latent, partial(self._move, self._graphs[f"sharpen_{task}"], schedule), schedule.sigmas)

    @staticmethod
    def _move(graph: GraphSession, schedule: Schedule, latent: Tensor, sigma: float, following: float) -> Tensor:
        timestep = schedule.timesteps[schedule.sigmas.index(sigma)]
        return graph(latent, torch.tensor([timestep]), torch.tensor([following - sigma]))

    def _batched(self, name: str, batch: Tensor) -> Tensor:
        """A graph takes one image."""
        graph = self._graphs[name]
        return torch.cat([graph(one) for one in batch.split(1)])


def load_exported(chosen: ModelConfig) -> ExportedModel:
    """The model of `model.path`, a folder that `lotus2 export` wrote. Raises as `ExportedModel` does."""
    if chosen.engine not in ("auto", ONNXRUNTIME):
        raise ValueError(f"{chosen.path}: expected model.engine onnxruntime for an exported model, got {chosen.engine}")
    if chosen.posterior != "mode":
        raise ValueError(f"{chosen.path}: expected model.posterior mode for an exported model, got {chosen.posterior}")
    return ExportedModel(
        Path(chosen.path),
        device=chosen.device,
        tasks=chosen.wanted_tasks,
        threads=chosen.threads,
        samples=chosen.samples,
        seed=chosen.seed,
    )
