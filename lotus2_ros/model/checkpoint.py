"""Loading a model from a folder: a bundle, or the files as released."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lotus2_ros.model import bundle, folded_bundle, lotus1_bundle
from lotus2_ros.model.bundle import MANIFEST, load_bundle, read_manifest
from lotus2_ros.model.fold import fold
from lotus2_ros.model.folded_bundle import load_folded_bundle
from lotus2_ros.model.interface import Runnable
from lotus2_ros.model.precision import resolve_device, resolve_dtype
from lotus2_ros.model.source import Source
from lotus2_ros.model.weights import CheckpointError

BUNDLED = Path(__file__).parents[1] / "bundled"


# Formats of each family's bundles.
FORMATS = {
    bundle.FAMILY: (bundle.FORMAT, folded_bundle.FORMAT),
    **dict.fromkeys(lotus1_bundle.FAMILIES, (lotus1_bundle.FORMAT,)),
}


def load(
    path: str | Path | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    tasks: Sequence[str] | None = None,
    conditioning: str | None = None,
    samples: int = 1,
    seed: int = 0,
) -> Runnable:
    """A model ready to run, from a bundle or a folder in the released layout; the bundled one without a path.

    What is not folded yet is folded on the way. tasks: what to load, all there is by default. conditioning: the dtype
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
        if manifest["family"] in lotus1_bundle.FAMILIES:
            model, state = lotus1_bundle.load_lotus1(folder, manifest, tasks=tasks, samples=samples, seed=seed)
            return lotus1_bundle.ready(model, state, device, dtype)
        if manifest["format"] == folded_bundle.FORMAT:
            return load_folded_bundle(
                folder, manifest, device=device, dtype=dtype, tasks=tasks, conditioning=conditioning
            )
        adapted = load_bundle(
            folder, device=torch.device("cpu"), dtype=torch.float32, tasks=tasks, conditioning=conditioning
        )
        return fold(Source.of(adapted), "float32", device=device, dtype=dtype)
    return _load_released(folder, device, dtype, tasks, conditioning, samples=samples, seed=seed)


def _load_released(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    tasks: Sequence[str] | None,
    conditioning: str | None,
    **sampling: int,
) -> Runnable:
    # Imported here, as they bring the text encoders, which a bundle does not need.
    if (folder / "transformer").is_dir() and (folder / "vae").is_dir():
        from lotus2_ros.model.released import open_released

        source = open_released(folder, folder, tasks=tasks, conditioning=conditioning)
        return fold(source, "float32", device=device, dtype=dtype)
    if (folder / "unet").is_dir() and (folder / "vae").is_dir():
        from lotus2_ros.model.lotus1_released import open_pipelines, predicted_by

        task, predicts = predicted_by(folder)
        chosen = bundle.choose_tasks((task,), tasks, folder)
        model, state = open_pipelines(dict.fromkeys(chosen, folder), predicts=predicts, **sampling)
        return lotus1_bundle.ready(model, state, device, dtype)
    raise CheckpointError(
        f"{folder}: neither a bundle ({MANIFEST}) nor a released layout "
        "(transformer/, vae/, ..., lotus-2_*.safetensors, or unet/, vae/, ... of Lotus-D or Lotus-G)"
    )
