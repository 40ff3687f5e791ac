"""What `lotus2 prepare` converts: released files of either family, or a trained bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch

from lotus2_ros.config import ModelConfig
from lotus2_ros.model.conversion import Conversion
from lotus2_ros.model.lotus import conversion as lotus
from lotus2_ros.model.lotus.released import FILES, SAID, files_of, predicted_by
from lotus2_ros.model.lotus2.bundle import WEIGHTS, load_bundle
from lotus2_ros.model.lotus2.conversion import Lotus2Conversion
from lotus2_ros.model.lotus2.fuse import Source
from lotus2_ros.model.lotus2.released import FLUX_FILES, TASKS, flux_files, lotus2_files, open_released
from lotus2_ros.model.manifest import MANIFEST, FloatName, Space
from lotus2_ros.prepare.hub import Origin, locate


def from_released(
    flux: str, lotus2: str, config: ModelConfig, *, precision: str | None, device: torch.device
) -> Conversion:
    """Of FLUX.1-dev and the released Lotus-2 files, each a folder or a name on the hub."""
    tasks = config.wanted_tasks or TASKS
    base = locate(flux, "flux", FLUX_FILES)
    adapters = locate(lotus2, "lotus2", lotus2_files(tasks))
    source = open_released(
        base.folder, adapters.folder, tasks=tasks, timestep_dtype=_timestep_dtype(config), device=device
    )
    files = {f"{base.name}/{name}": base.folder / name for name in flux_files(base.folder)}
    files |= {f"{adapters.name}/{name}": adapters.folder / name for name in lotus2_files(tasks)}
    return Lotus2Conversion(source, files, precision=precision, device=device)


def from_trained(bundle: Path, config: ModelConfig, *, precision: str | None, device: torch.device) -> Conversion:
    """Of a bundle that `lotus2 train` wrote."""
    model = load_bundle(
        bundle,
        device=torch.device("cpu"),
        dtype=torch.float32,
        tasks=config.wanted_tasks,
        timestep_dtype=_timestep_dtype(config),
    )
    files = {f"bundle/{name}": bundle / name for name in (MANIFEST, WEIGHTS)}
    return Lotus2Conversion(Source.of(model), files, precision=precision, device=device)


def from_lotus(places: Sequence[str], config: ModelConfig, *, precision: str | None) -> Conversion:
    """Of released folders of Lotus-D or Lotus-G, one for each task."""
    origins, predicts = _locate_tasks(places, config.wanted_tasks)
    folders = {task: origin.folder for task, origin in origins.items()}
    files = {
        f"{origin.name}/{name}": origin.folder / name for origin in origins.values() for name in files_of(origin.folder)
    }
    return lotus.LotusConversion(folders, files, predicts=predicts, precision=precision)


def _locate_tasks(places: Sequence[str], tasks: Sequence[str] | None) -> tuple[dict[str, Origin], Space]:
    """The folder of each task, or of each of `tasks`, and the space of the predicted depth.

    places: folders or names on the hub. Their names say what their model predicts, or `disparity=`, `depth=` or
    `normals=` in front of them does. Raises ValueError when neither does, when two are for one task, or when there is
    none for a task.
    """
    found: dict[str, Origin] = {}
    predicts: Space = "disparity"
    for place in places:
        said, equals, rest = place.partition("=")
        if equals and said not in SAID:
            raise ValueError(f"expected {', '.join(SAID)} before '=', got {said!r}")
        where = rest if equals else place
        task, space = SAID[said] if equals else predicted_by(Path(where.split("@")[0]))
        if task in found:
            raise ValueError(f"expected one folder for {task}, got {found[task].name} and {where}")
        found[task] = locate(where, Path(where).name, FILES)
        predicts = space if task == "depth" else predicts
    chosen = {task: origin for task, origin in found.items() if tasks is None or task in tasks}
    if tasks and not chosen:
        raise ValueError(f"expected folders for {' or '.join(tasks)}, got {', '.join(found)}")
    return chosen, predicts


def _timestep_dtype(config: ModelConfig) -> FloatName:
    return cast(FloatName, config.timestep_dtype)
