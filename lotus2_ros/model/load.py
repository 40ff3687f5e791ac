"""Loading a model from a folder: a bundle, or the files as released."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lotus2_ros.model.interface import InferenceModel
from lotus2_ros.model.layers.precision import resolve_device, resolve_dtype
from lotus2_ros.model.lotus import bundle as lotus_bundle
from lotus2_ros.model.lotus2 import bundle as lotus2_bundle
from lotus2_ros.model.lotus2 import fused_bundle
from lotus2_ros.model.lotus2.bundle import load_bundle
from lotus2_ros.model.lotus2.fuse import fuse
from lotus2_ros.model.lotus2.fused_bundle import load_fused_bundle
from lotus2_ros.model.lotus2.source import Source
from lotus2_ros.model.manifest import MANIFEST, choose_tasks, read_manifest
from lotus2_ros.model.weights import CheckpointError

BUNDLED = Path(__file__).parents[1] / "bundled"

# Formats of each family's bundles.
FORMATS = {
    lotus2_bundle.FAMILY: (lotus2_bundle.FORMAT, fused_bundle.FORMAT),
    **dict.fromkeys(lotus_bundle.FAMILIES, (lotus_bundle.FORMAT,)),
}


def load_model(
    path: str | Path | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    tasks: Sequence[str] | None = None,
    conditioning: str | None = None,
    samples: int = 1,
    seed: int = 0,
) -> InferenceModel:
    """A model ready to run, from a bundle or a folder in the released layout; the bundled one without a path.

    What is not fused yet is fused on the way. tasks: what to load, all there is by default. conditioning: the dtype
    in which timestep and guidance are rounded, by default the one the model was made with. samples and seed: of a
    generative model. Raises CheckpointError, one line, on a missing, broken or foreign file.
    """
    folder = Path(path) if path else BUNDLED
    device = resolve_device(device)
    dtype = resolve_dtype(dtype, device)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; expected a bundle or a folder in the released layout")
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder / MANIFEST, FORMATS)
        if manifest["family"] in lotus_bundle.FAMILIES:
            model, state = lotus_bundle.load_lotus(folder, manifest, tasks=tasks, samples=samples, seed=seed)
            return lotus_bundle.ready(model, state, device, dtype)
        if manifest["format"] == fused_bundle.FORMAT:
            return load_fused_bundle(
                folder, manifest, device=device, dtype=dtype, tasks=tasks, conditioning=conditioning
            )
        adapted = load_bundle(
            folder, device=torch.device("cpu"), dtype=torch.float32, tasks=tasks, conditioning=conditioning
        )
        return fuse(Source.of(adapted), "float32", device=device, dtype=dtype)
    return _load_released(folder, device, dtype, tasks, conditioning, samples=samples, seed=seed)


def _load_released(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    tasks: Sequence[str] | None,
    conditioning: str | None,
    **sampling: int,
) -> InferenceModel:
    # Imported here, as they bring the text encoders, which a bundle does not need.
    if (folder / "transformer").is_dir() and (folder / "vae").is_dir():
        from lotus2_ros.model.lotus2.released import open_released

        source = open_released(folder, folder, tasks=tasks, conditioning=conditioning)
        return fuse(source, "float32", device=device, dtype=dtype)
    if (folder / "unet").is_dir() and (folder / "vae").is_dir():
        from lotus2_ros.model.lotus.released import open_pipelines, predicted_by

        task, predicts = predicted_by(folder)
        chosen = choose_tasks((task,), tasks, folder)
        model, state = open_pipelines(dict.fromkeys(chosen, folder), predicts=predicts, **sampling)
        return lotus_bundle.ready(model, state, device, dtype)
    raise CheckpointError(
        f"{folder}: neither a bundle ({MANIFEST}) nor a released layout "
        "(transformer/, vae/, ..., lotus-2_*.safetensors, or unet/, vae/, ... of Lotus-D or Lotus-G)"
    )
