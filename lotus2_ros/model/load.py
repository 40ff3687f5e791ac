"""Loading a model from a folder: a bundle, or the files as released."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch

from lotus2_ros.model.families import FAMILIES, FORMATS
from lotus2_ros.model.family import LoadOptions
from lotus2_ros.model.interface import InferenceModel
from lotus2_ros.model.layers.precision import dtype_named, resolve_device, resolve_dtype
from lotus2_ros.model.manifest import MANIFEST, FloatName, read_header
from lotus2_ros.model.weights import CheckpointError

BUNDLED = Path(__file__).parents[1] / "bundled"


def load_model(
    path: str | Path | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    tasks: Sequence[str] | None = None,
    timestep_dtype: str | None = None,
    samples: int = 1,
    seed: int = 0,
) -> InferenceModel:
    """A model that is ready to run, from a bundle or a folder in the released layout; by default the bundled model.

    A model that is not fused yet is fused now. tasks: what to load, by default all tasks there are. timestep_dtype:
    dtype to which timestep and guidance are rounded, by default the one the model was made with. samples and seed: of a
    generative model. Raises CheckpointError, in one line, on a missing, broken or unknown file.
    """
    folder = Path(path) if path else BUNDLED
    device = resolve_device(device)
    if timestep_dtype is not None:
        dtype_named(timestep_dtype)
    options = LoadOptions(
        device, resolve_dtype(dtype, device), tasks, cast(FloatName, timestep_dtype), samples=samples, seed=seed
    )
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; expected a bundle or a folder in the released layout")
    if (folder / MANIFEST).is_file():
        header = read_header(folder / MANIFEST, FORMATS)
        return next(each for each in FAMILIES if header.family in each.formats).load_bundle(folder, header, options)
    for family in FAMILIES:
        if family.is_released(folder):
            return family.load_released(folder, options)
    layouts = ", or ".join(family.layout for family in FAMILIES)
    raise CheckpointError(f"{folder}: neither a bundle ({MANIFEST}) nor a released layout ({layouts})")
