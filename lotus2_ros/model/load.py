"""Loading a model from a folder: a bundle, or the files as released."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch

from lotus2_ros.config.errors import first_line
from lotus2_ros.model.export.manifest import is_exported
from lotus2_ros.model.families import FAMILIES, FORMATS
from lotus2_ros.model.family import Family, LoadOptions
from lotus2_ros.model.layers.precision import dtype_named, resolve_device, resolve_dtype
from lotus2_ros.model.manifest import MANIFEST, FloatName, Header, read_header
from lotus2_ros.model.memory import MemoryShortageError, memory_errors
from lotus2_ros.model.torch_model import InferenceModel
from lotus2_ros.model.weights import CheckpointError, found_instead

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
    folder = model_folder(path)
    device = resolve_device(device)
    if timestep_dtype is not None:
        dtype_named(timestep_dtype)
    family, header = recognize(folder)
    options = LoadOptions(
        device,
        resolve_dtype(dtype, device, family.without_bfloat16),
        tasks,
        cast(FloatName, timestep_dtype),
        samples=samples,
        seed=seed,
    )
    try:
        with memory_errors():
            if header is not None:
                return family.load_bundle(folder, header, options)
            return family.load_released(folder, options)
    except MemoryShortageError as error:
        raise MemoryShortageError(f"{folder}: {error}") from error
    except RuntimeError as error:  # torch's, of CUDA for instance
        raise CheckpointError(f"{folder}: cannot be loaded on {device} ({first_line(error)})") from error


def model_folder(path: str | Path | None) -> Path:
    """The folder of a model; without a path that of the bundled one."""
    return Path(path) if path else BUNDLED


def stored_bytes(folder: Path) -> int:
    """The size of the weight files of a bundle or a released layout."""
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))


def recognize(folder: Path) -> tuple[Family, Header | None]:
    """The family of a folder, and the header of its manifest, None if it is in the released layout.

    Raises CheckpointError unless the folder is one of these.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: {_problem(folder)}; expected a bundle or a folder in the released layout")
    if (folder / MANIFEST).is_file():
        header = read_header(folder / MANIFEST, FORMATS)
        return next(family for family in FAMILIES if header.family in family.formats), header
    if is_exported(folder):
        raise CheckpointError(f"{folder}: written by `lotus2 export`, for ONNX Runtime; expected what was exported")
    for family in FAMILIES:
        if family.is_released(folder):
            return family, None
    layouts = ", or ".join(family.layout for family in FAMILIES)
    raise CheckpointError(
        f"{folder}: neither a bundle ({MANIFEST}) nor a released layout ({layouts}){found_instead(folder)}"
    )


def _problem(path: Path) -> str:
    """Why a path is not a folder, for an error."""
    if path.suffix == ".gguf":
        return "a GGUF file, quantized for other programs, which is not read"
    if path.is_file():
        return "a single file, not a folder; `lotus2 prepare` makes a bundle of a FLUX checkpoint (--flux)"
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(path)):
        return "no such folder; models of the Hugging Face hub are fetched by `lotus2 prepare`"
    return "no such folder"
