"""A model by its path or by the parameters, ready to predict."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lotus2_ros.config import Config
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.model.engine.choice import EngineChoice
from lotus2_ros.model.engine.device import use_threads
from lotus2_ros.model.engine.onnxruntime import load_exported
from lotus2_ros.model.engine.runtime import choose_resolution, optimize
from lotus2_ros.model.export.manifest import is_exported
from lotus2_ros.model.load import load_model
from lotus2_ros.scale.metric_model import configured_metric_model


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    device: str | None = None,
    engine: str | None = None,
    dtype: str | None = None,
    tasks: Sequence[str] | None = None,
    process_resolution: int | None = None,
    compile: bool = False,
    parameters: Mapping[str, Any] | None = None,
) -> Estimator:
    """Load a model, ready to predict.

    Args:
        path: a bundle, a folder in the released layout, or one that `lotus2 export` wrote; the small bundled model by
            default.
        device: "cpu" or "cuda"; by default the GPU if there is one.
        engine: "torch", the default, or "openvino", which is faster on a CPU and compiles for each image size.
        dtype: "float32", "bfloat16" or "float16"; by default what suits the device.
        tasks: "depth", "normals"; by default all that the model has.
        process_resolution: longer side in pixels at which the model sees the image; by default its own.
        compile: on a GPU, compile the model: the first image of each size takes minutes, all others less.
        parameters: any of the node's parameters by name, for example ``{"scale.camera_height": 1.2}``.

    Raises ValueError on a wrong argument and on a model that cannot be loaded.
    """
    given = {
        "model.path": None if path is None else os.fspath(path),
        "model.device": device,
        "model.engine": engine,
        "model.dtype": dtype,
        "model.tasks": tasks,
        "model.process_resolution": process_resolution,
        "model.compile": compile,
    }
    given = {name: value for name, value in given.items() if value is not None}
    return load_estimator(Config().updated(given | dict(parameters or {})))


def load_estimator(config: Config, *, live: bool = False) -> Estimator:
    """The model that ``config.model`` names, ready to predict. Raises ValueError if it cannot be loaded.

    ``live``: for a camera. Where the configuration leaves resolution or engine open, choose what keeps up on this
    machine; the result then depends on the machine, so recordings are not processed this way. Setting the number of CPU
    threads, ``config.model.threads``, is left to the thread that will run the model.
    """
    chosen = config.model
    if chosen.threads and not live:
        use_threads(chosen.threads)
    if chosen.path and is_exported(Path(chosen.path)):
        exported = load_exported(chosen)
        return Estimator(exported, config, metric_model=configured_metric_model(config.scale, exported.device))
    engine = EngineChoice.of(chosen, live=live)
    model = load_model(
        chosen.path,
        device=engine.device,
        dtype=engine.weight_dtype,
        tasks=chosen.wanted_tasks,
        timestep_dtype=chosen.timestep_dtype,
        samples=chosen.samples,
        seed=chosen.seed,
    )
    optimize(model, compile=chosen.compile, graphs=chosen.compile, engine=engine)
    metric_model = configured_metric_model(config.scale, model.device)
    return Estimator(model, config, choose_resolution(model) if live else None, metric_model)
