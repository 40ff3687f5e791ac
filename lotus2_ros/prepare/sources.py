"""The sources of `lotus2 prepare`: released files of either family, or a trained bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch

from lotus2_ros.config import ModelConfig
from lotus2_ros.config.precisions import LOTUS_PRECISIONS, PRECISIONS
from lotus2_ros.geometry.depth import Space
from lotus2_ros.model.conversion import Conversion
from lotus2_ros.model.lotus import conversion as lotus
from lotus2_ros.model.lotus.released import FILES, SAID, files_of, predicted_by
from lotus2_ros.model.lotus2.bundle import WEIGHTS, open_bundle
from lotus2_ros.model.lotus2.conversion import Lotus2Conversion
from lotus2_ros.model.lotus2.flux_layout import FLUX_FILES, flux_files, flux_folder
from lotus2_ros.model.lotus2.released import lotus2_files, open_released
from lotus2_ros.model.manifest import MANIFEST, TASKS, FloatName
from lotus2_ros.prepare.hub import Found, Origin, check_room, fetch, find

# Files of FLUX and Lotus-2 that go into the bundle; text encoders do not.
CONVERTED = ("transformer/", "vae/", "lotus-2_")
# Size of a bundle by that of these files in bfloat16, at most. A quarter of FLUX becomes constants.
LOTUS2_SHARES: dict[str | None, float] = {
    None: 0.85,
    "float32": 1.7,
    "bfloat16": 0.85,
    "float8": 0.45,
    "int8": 0.45,
    "nf4": 0.25,
}
# Of the U-Nets in float32, as they are released.
LOTUS_SHARES: dict[str | None, float] = {"bfloat16": 0.6, "float16": 0.6}


def from_released(
    flux: str, lotus2: str, config: ModelConfig, *, output: Path, precision: str | None, device: torch.device
) -> Conversion:
    """Of FLUX.1-dev and the released Lotus-2 files, each a folder or a name on the hub."""
    _check_precision(precision, PRECISIONS, "Lotus-2")
    if Path(flux).is_file() and Path(flux).suffix != ".safetensors":
        kind = "a GGUF file, quantized for other programs" if Path(flux).suffix == ".gguf" else "another file"
        raise ValueError(f"{flux}: expected a folder or flux1-dev.safetensors, got {kind}")
    tasks = config.wanted_tasks or TASKS
    names = lotus2_files(tasks)
    found = find(flux, "flux", FLUX_FILES), find(lotus2, "lotus2", names, required=names)
    weights = sum(size for each in found for name, size in each.sizes.items() if name.startswith(CONVERTED))
    base, adapters = _fetch(found, output, round(LOTUS2_SHARES[precision] * weights))
    source = open_released(
        base.folder, adapters.folder, tasks=tasks, timestep_dtype=_timestep_dtype(config), device=device
    )
    files = {f"{base.name}/{name}": flux_folder(base.folder) / name for name in flux_files(base.folder)}
    files |= {f"{adapters.name}/{name}": adapters.folder / name for name in names}
    return Lotus2Conversion(source, files, precision=precision, device=device)


def from_trained(bundle: Path, config: ModelConfig, *, precision: str | None, device: torch.device) -> Conversion:
    """Of a bundle that `lotus2 train` wrote."""
    _check_precision(precision, PRECISIONS, "Lotus-2")
    source = open_bundle(bundle, tasks=config.wanted_tasks, timestep_dtype=_timestep_dtype(config))
    files = {f"bundle/{name}": bundle / name for name in (MANIFEST, WEIGHTS)}
    return Lotus2Conversion(source, files, precision=precision, device=device)


def from_lotus(places: Sequence[str], config: ModelConfig, *, output: Path, precision: str | None) -> Conversion:
    """Of released folders of Lotus-D or Lotus-G, one for each task."""
    _check_precision(precision, LOTUS_PRECISIONS, "Lotus-D and Lotus-G")
    found, predicts = _find_tasks(places, config.wanted_tasks)
    weights = sum(size for each in found.values() for name, size in each.sizes.items() if name.startswith("unet/"))
    fetched = _fetch(tuple(found.values()), output, round(LOTUS_SHARES.get(precision, 1.0) * weights))
    origins = dict(zip(found, fetched, strict=True))
    folders = {task: origin.folder for task, origin in origins.items()}
    files = {
        f"{origin.name}/{name}": origin.folder / name for origin in origins.values() for name in files_of(origin.folder)
    }
    return lotus.LotusConversion(folders, files, predicts=predicts, precision=precision)


def _fetch(found: Sequence[Found], output: Path, bundle: int) -> list[Origin]:
    """Fetch what was found, once all of it is known to fit the disks. bundle: about how many bytes it will have."""
    for each in found:
        print(each, flush=True)
    if any(each.missing for each in found):
        check_room(found, output, bundle)
    return [fetch(each) for each in found]


def _find_tasks(places: Sequence[str], tasks: Sequence[str] | None) -> tuple[dict[str, Found], Space]:
    """The files of each task, or of each of `tasks`, and the space of the predicted depth.

    places: folders or names on the hub. Their names say what their model predicts, or `disparity=`, `depth=` or
    `normals=` in front of them does. Raises ValueError when neither does, when two are for one task, or when there is
    none for a task.
    """
    said_of: dict[str, str] = {}
    predicts: Space = "disparity"
    for place in places:
        said, equals, rest = place.partition("=")
        if equals and said not in SAID:
            raise ValueError(f"expected {', '.join(SAID)} before '=', got {said!r}")
        where = rest if equals else place
        task, space = SAID[said] if equals else predicted_by(Path(where.split("@")[0]))
        if task in said_of:
            raise ValueError(f"expected one folder for {task}, got {said_of[task]} and {where}")
        said_of[task] = where
        predicts = space if task == "depth" else predicts
    chosen = {task: where for task, where in said_of.items() if tasks is None or task in tasks}
    if tasks and not chosen:
        raise ValueError(f"expected folders for {' or '.join(tasks)}, got {', '.join(said_of)}")
    return {task: find(where, Path(where).name, FILES) for task, where in chosen.items()}, predicts


def _timestep_dtype(config: ModelConfig) -> FloatName:
    return cast(FloatName, config.timestep_dtype)


def _check_precision(precision: str | None, choices: Sequence[str], family: str) -> None:
    if precision not in (None, *choices):
        raise ValueError(f"expected a precision of {', '.join(choices)} for {family}, got {precision}")
