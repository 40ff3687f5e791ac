"""Loading a model from a folder: a bundle, or the files as released."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lotus2_ros.model.bundle import MANIFEST, load_bundle
from lotus2_ros.model.lotus2 import Lotus2
from lotus2_ros.model.precision import resolve_device, resolve_dtype
from lotus2_ros.model.weights import CheckpointError

BUNDLED = Path(__file__).parents[1] / "bundled"


def load(
    path: str | Path | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    tasks: Sequence[str] | None = None,
    conditioning: str | None = None,
) -> Lotus2:
    """A model ready to run, from a bundle or a folder in the released layout; the bundled one without a path.

    tasks: what to load, all there is by default. conditioning: the dtype in which timestep and guidance are rounded, by
    default the one the model was made with. Raises CheckpointError, one line, on a missing, broken or foreign file.
    """
    folder = Path(path) if path else BUNDLED
    device = resolve_device(device)
    dtype = resolve_dtype(dtype, device)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; expected a bundle or a folder in the released layout")
    if (folder / MANIFEST).is_file():
        return load_bundle(folder, device=device, dtype=dtype, tasks=tasks, conditioning=conditioning)
    if (folder / "transformer").is_dir() and (folder / "vae").is_dir():
        from lotus2_ros.model.released import load_released  # text encoders: a bundle needs none

        return load_released(folder, device=device, dtype=dtype, tasks=tasks, conditioning=conditioning)
    raise CheckpointError(
        f"{folder}: neither a bundle ({MANIFEST}) "
        "nor the released layout (transformer/, vae/, ..., lotus-2_*.safetensors)"
    )
