"""Writing an exported model: graphs, manifest and README, each stage compared with torch if ONNX Runtime is there."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from lotus2_ros.config.output import check_output, mark
from lotus2_ros.geometry.depth import PREDICTED
from lotus2_ros.model.export.graphs import OPSET, WEIGHTS, WeightsFile, check_installed, write_graph
from lotus2_ros.model.export.manifest import EXPORT, FORMAT, UNCERTAINTY, ExportManifest, Precision
from lotus2_ros.model.export.readme import readme
from lotus2_ros.model.export.stages import Stage, constants_computed, run_stages, stages_of
from lotus2_ros.model.layers.linear import FLOATS
from lotus2_ros.model.load import load_model
from lotus2_ros.model.manifest import ModelSettings, stored_metadata
from lotus2_ros.model.torch_model import InferenceModel

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
# Of a graph's output against torch in float32, see `difference`.
LARGEST_DIFFERENCE = {"fp32": 1e-3, "fp16": 2e-2}
# Models with more weights keep them in one file for all graphs, and have no graph from image to annotation.
SMALL_BYTES = 1 << 28
MOST_STEPS = 50  # as `sharp.steps`
COMMAND = "export"


class ExportDifferenceError(ValueError):
    """An exported graph does not give what torch gives."""


def export(
    path: Path | None,
    output: Path,
    *,
    size: tuple[int, int] | None = None,
    precision: Precision = "fp32",
    tasks: Sequence[str] | None = None,
    check: bool = True,
    say: Callable[[str], None] = print,
) -> ExportManifest:
    """Write a model as ONNX graphs for one image size (height, width), by default that of a 4:3 image.

    The graphs are compared with torch in float32 where onnxruntime is installed, unless `check` is False. Files that
    are not of an earlier export stay where they are. Raises ValueError, ExportDifferenceError or OSError, and then
    leaves `output` as it was.
    """
    check_installed()
    place = check_output(output, COMMAND, [] if path is None else [path])
    work = check_output(place.with_name(f"{place.name}.part"), COMMAND)
    model = _load(path, "fp32", tasks)
    height, width = size = _check_size(model, size)
    whole = sum(parameter.nbytes for parameter in model.parameters()) <= SMALL_BYTES
    expected = None
    if check and importlib.util.find_spec("onnxruntime") is None:
        say("not checked: onnxruntime is not installed")
    elif check:
        with torch.inference_mode():
            expected = run_stages(model, stages_of(model, height, width, whole=whole))
        model.train(False)  # empties the cache of tensors made in inference mode
    if precision != "fp32":
        del model
        model = _load(path, precision, tasks)
    shutil.rmtree(work, ignore_errors=True)
    mark(work, COMMAND)
    try:
        stages = stages_of(model, height, width, whole=whole)
        weights = None if whole else WeightsFile(work / WEIGHTS)
        with torch.no_grad(), constants_computed(model, height, width):
            for stage in stages:
                write_graph(model, stage, work / f"{stage.name}.onnx", weights)
                say(f"{stage.name}.onnx")
        described = _describe(model, size, precision, stages)
        del model, stages  # a runtime is about to load the same weights
        if expected is not None:
            _compare(work, expected, described["graphs"], LARGEST_DIFFERENCE[precision], say)
        (work / EXPORT).write_text(json.dumps(described, indent=1) + "\n")
        manifest = ExportManifest.of(work)
        text = readme(manifest, ModelSettings.read(work / EXPORT), place.name, weights is not None)
        (work / "README.md").write_text(text)
        _move(work, place)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return manifest


def _load(path: Path | None, precision: str, tasks: Sequence[str] | None) -> InferenceModel:
    model = load_model(path, device="cpu", dtype=DTYPES[precision], tasks=tasks)
    if model.linear_precision not in FLOATS:
        raise ValueError(
            f"{path}: expected a bundle in float32 or bfloat16, got {model.linear_precision}; prepare it again with "
            "--precision bfloat16, and export that"
        )
    return model


def _check_size(model: InferenceModel, size: tuple[int, int] | None) -> tuple[int, int]:
    if size is None:
        return model.process_size(480, 640, model.settings.process_resolution)
    multiple = model.multiple
    if any(side % multiple or side == 0 for side in size):
        nearest = "x".join(str(max(1, round(side / multiple)) * multiple) for side in size)
        raise ValueError(f"--size: expected multiples of {multiple} for {model.name}, such as {nearest}, got "
                         f"{size[0]}x{size[1]}")  # fmt: skip
    return size


def _describe(model: InferenceModel, size: tuple[int, int], precision: str, stages: Sequence[Stage]) -> dict[str, Any]:
    """The manifest, without the differences to torch."""
    h, w = (side // model.vae_factor for side in size)
    sharpened = [task for task in model.tasks if model.has_sharpener(task)]
    schedules = {}
    for steps in range(1, MOST_STEPS + 1) if sharpened else ():
        sigmas, timesteps = model.schedule(steps, h, w)
        schedules[str(steps)] = {"sigmas": sigmas, "timesteps": timesteps}
    settings = model.settings.changed(process_resolution=max(size), process_by_area=False)
    return {
        "format": FORMAT,
        "family": "onnx",
        **{key: value for key, value in stored_metadata(model.metadata).items() if key != "card"},
        **settings.stored(*ModelSettings.model_fields),
        "precision": precision,
        "opset": OPSET,
        "size": list(size),
        "multiple": model.multiple,
        "upsampling": model.upsampling,
        "noise_channels": model.noise_channels,
        "sharpened": sharpened,
        "schedules": schedules,
        "graphs": {
            stage.name: {"inputs": stage.inputs, "output": stage.output, "shape": _output_shape(model, stage, size)}
            for stage in stages
        },
    }


def _output_shape(model: InferenceModel, stage: Stage, size: tuple[int, int]) -> tuple[int, ...]:
    h, w = (side // model.vae_factor for side in size)
    latent = (1, model.latent_channels, h, w)
    if stage.name == UNCERTAINTY:
        return (1, 1, h, w)
    channels = 1 if stage.output in PREDICTED.values() else 3
    return latent if stage.output in ("latent", "annotation", "sharpened") else (1, channels, *size)


def _compare(
    folder: Path,
    expected: dict[str, tuple[list[Tensor], Tensor]],
    graphs: dict[str, Any],
    largest: float,
    say: Callable[[str], None],
) -> None:
    """Run each graph by ONNX Runtime on the CPU. Raises ExportDifferenceError."""
    from lotus2_ros.model.engine.onnxruntime import CPU, GraphSession

    for name, (inputs, output) in expected.items():
        error = difference(GraphSession(folder / f"{name}.onnx", [(CPU, {})])(*inputs), output)
        graphs[name]["error"] = error
        say(f"{name}: difference to torch {error:.1e}")
        if not error <= largest:
            raise ExportDifferenceError(
                f"{name}: expected a difference to torch of at most {largest:g}, got {error:.2g}; nothing was written"
            )


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value where that is above 1."""
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1.0))


def _move(work: Path, place: Path) -> None:
    """Put the files at their place; those of an earlier export go, all others stay. The manifest comes last."""
    mark(place, COMMAND)
    if (place / EXPORT).is_file():
        old = [f"{name}.onnx" for name in json.loads((place / EXPORT).read_text()).get("graphs", {})]
        (place / EXPORT).unlink()
        for name in (*old, WEIGHTS):
            (place / name).unlink(missing_ok=True)
    for file in sorted(work.iterdir(), key=lambda file: file.name == EXPORT):
        file.replace(place / file.name)
