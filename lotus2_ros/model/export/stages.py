"""The stages of a model that become graphs: functions of float32 tensors, for one image of a fixed size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lotus2_ros.geometry.depth import PREDICTED
from lotus2_ros.geometry.normals import MODEL_TO_OPTICAL, normalize
from lotus2_ros.model.export.manifest import UNCERTAINTY
from lotus2_ros.model.torch_model import InferenceModel

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Stage:
    """inputs: shapes by name, in the order of `run`."""

    name: str
    inputs: Mapping[str, Shape]
    output: str
    run: Callable[..., Tensor]


class StageModule(nn.Module):
    """A stage as the exporter takes it. It holds the model, so that the exporter knows the weights."""

    def __init__(self, model: InferenceModel, stage: Stage) -> None:
        super().__init__()
        self.model, self._run = model, stage.run
        self.training = False

    def forward(self, *tensors: Tensor) -> Tensor:
        return self._run(*tensors)


def stages_of(model: InferenceModel, height: int, width: int, *, whole: bool) -> list[Stage]:
    """The stages of all tasks. whole: also each task in one graph, from the image to disparity or normals."""
    h, w = height // model.vae_factor, width // model.vae_factor
    image = (1, 3, height, width)
    annotation = (1, model.latent_channels, h, w)
    latent = (1, model.latent_channels + model.noise_channels, h, w)

    def core(task: str) -> Callable[[Tensor], Tensor]:
        return lambda latent: model.core(latent.to(model.dtype), task).float()

    def sharpen(task: str) -> Callable[..., Tensor]:
        return lambda annotation, timestep, delta: model.euler_step(annotation, task, timestep, delta)

    steps = {"annotation": annotation, "timestep": (1,), "delta": (1,)}
    stages = [Stage("encode", {"image": image}, "latent", lambda image: model.encode(image).float())]
    stages += [Stage(f"core_{task}", {"latent": latent}, "annotation", core(task)) for task in model.tasks]
    stages += [
        Stage(f"sharpen_{task}", steps, "sharpened", sharpen(task)) for task in model.tasks if model.has_sharpener(task)
    ]
    stages.append(Stage("decode", {"annotation": annotation}, "picture", lambda a: model.decode(a.to(model.dtype))))
    if model.has_uncertainty and "depth" in model.tasks:
        stages.append(Stage(UNCERTAINTY, {"annotation": annotation}, "deviation", model.predict_uncertainty))
    if whole:
        inputs: dict[str, Shape] = {"image": image}
        if model.noise_channels:
            inputs["noise"] = (1, model.noise_channels, h, w)
        stages += [_whole(model, task, inputs) for task in model.tasks]
    return stages


def _whole(model: InferenceModel, task: str, inputs: Mapping[str, Shape]) -> Stage:
    output = PREDICTED[model.settings.predicts] if task == "depth" else task

    def run(image: Tensor, *noise: Tensor) -> Tensor:
        latent = torch.cat([model.encode(image), *(each.to(model.dtype) for each in noise)], dim=1)
        picture = model.decode(model.core(latent, task))
        if task == "depth":
            return picture.mean(dim=1, keepdim=True)
        return normalize(MODEL_TO_OPTICAL * (2 * picture - 1).movedim(1, -1)).movedim(-1, 1)

    return Stage(f"image_to_{output}", inputs, output, run)


@contextmanager
def constants_computed(model: InferenceModel, height: int, width: int) -> Iterator[None]:
    """Within this context, what the model computes once for an image size is there, and becomes constants of a graph.

    A pass computes it before it calls the executor. So a pass runs whose executor leaves out the network.
    """
    h, w = height // model.vae_factor, width // model.vae_factor
    channels = model.vae.config.latent_channels
    executor, model.executor = model.executor, lambda key, function, latent, *rest: latent[:, :channels]
    try:
        for task in model.tasks:
            model.core(torch.zeros(1, model.latent_channels + model.noise_channels, h, w, dtype=model.dtype), task)
    finally:
        model.executor = executor
    yield
    model.train(False)  # empties the cache, which may hold tensors of the exporter


def run_stages(model: InferenceModel, stages: list[Stage]) -> dict[str, tuple[list[Tensor], Tensor]]:
    """Inputs and output of each stage, of a random image; a stage takes what the ones before it gave."""
    generator = torch.Generator().manual_seed(0)
    known: dict[str, Tensor] = {}
    results = {}
    for stage in stages:
        inputs = [_input(name, shape, known, generator) for name, shape in stage.inputs.items()]
        output = stage.run(*inputs)
        results[stage.name] = (inputs, output)
        known.setdefault(stage.output, output)
    return results


def _input(name: str, shape: Shape, known: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    if name == "image":
        coarse = torch.rand(1, 3, 6, 8, generator=generator)
        known.setdefault(name, nn.functional.interpolate(coarse, shape[2:], mode="bilinear") * 2 - 1)
    if name == "timestep":
        return torch.tensor([5.0])
    if name == "delta":
        return torch.tensor([-0.25])
    found = known[name] if name in known else torch.randn(shape, generator=generator)
    missing = shape[1] - found.shape[1]  # channels of noise
    return torch.cat((found, torch.randn(1, missing, *shape[2:], generator=generator)), dim=1) if missing else found
