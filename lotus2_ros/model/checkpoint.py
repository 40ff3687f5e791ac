"""Loading a model from a folder: a bundle, or the files as released."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lotus2_ros.model import bundle, folded_bundle
from lotus2_ros.model.bundle import MANIFEST, load_bundle, read_manifest
from lotus2_ros.model.fold import fold
from lotus2_ros.model.folded import FoldedLotus2
from lotus2_ros.model.folded_bundle import load_folded_bundle
from lotus2_ros.model.precision import resolve_device, resolve_dtype
from lotus2_ros.model.source import Source
from lotus2_ros.model.weights import CheckpointError

BUNDLED = Path(__file__).parents[1] / "bundled"


def load(
    path: str | Path | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    tasks: Sequence[str] | None = None,
    conditioning: str | None = None,
) -> FoldedLotus2:
    """A model ready to run, from a bundle or a folder in the released layout; the bundled one without a path.

    What is not folded yet is folded on the way. tasks: what to load, all there is by default. conditioning: the dtype
    in which timestep and guidance are rounded, by default the one the model was made with. Raises CheckpointError, one
    line, on a missing, broken or foreign file.
    """
    folder = Path(path) if path else BUNDLED
    device = resolve_device(device)
    dtype = resolve_dtype(dtype, device)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; expected a bundle or a folder in the released layout")
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder / MANIFEST, (bundle.FORMAT, folded_bundle.FORMAT))
        if manifest["format"] == folded_bundle.FORMAT:
            return load_folded_bundle(
                folder, manifest, device=device, dtype=dtype, tasks=tasks, conditioning=conditioning
            )
        model = load_bundle(
            folder, device=torch.device("cpu"), dtype=torch.float32, tasks=tasks, conditioning=conditioning
        )
        return fold(Source.of(model), "float32", device=device, dtype=dtype)
    if (folder / "transformer").is_dir() and (folder / "vae").is_dir():
        from lotus2_ros.model.released import open_released  # text encoders: a bundle needs none

        source = open_released(folder, folder, tasks=tasks, conditioning=conditioning)
        return fold(source, "float32", device=device, dtype=dtype)
    raise CheckpointError(
        f"{folder}: neither a bundle ({MANIFEST}) "
        "nor the released layout (transformer/, vae/, ..., lotus-2_*.safetensors)"
    )
