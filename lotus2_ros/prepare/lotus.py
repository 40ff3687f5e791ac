"""From released folders of Lotus-D or Lotus-G, one for each task, to one bundle without a text encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lotus2_ros import __version__
from lotus2_ros.model.layers.precision import dtype_named
from lotus2_ros.model.lotus.bundle import FORMAT, describe, parts
from lotus2_ros.model.lotus.lotus import Lotus
from lotus2_ros.model.lotus.released import SAID, open_pipelines, predicted_by
from lotus2_ros.model.manifest import MANIFEST
from lotus2_ros.prepare.convert import checksums, leaving_nothing
from lotus2_ros.prepare.disk import check_space
from lotus2_ros.prepare.hub import Origin, locate
from lotus2_ros.prepare.progress import PrepareProgress
from lotus2_ros.prepare.work import BUNDLE, Work, check_output, unfinished_size

PRECISIONS = ("float32", "bfloat16", "float16")
WEIGHTS = "diffusion_pytorch_model"
# What is needed of a released folder: not the second copies of the weights in float16 that some hold.
FILES = (
    "model_index.json",
    "tokenizer/*",
    *(f"{part}/config.json" for part in ("text_encoder", "unet", "vae")),
    *(
        f"{part}/{stem}{ending}"
        for part, stem in (("text_encoder", "model"), ("unet", WEIGHTS), ("vae", WEIGHTS))
        for ending in (".safetensors", ".safetensors.index.json", "-*.safetensors")
    ),
)
SPACE_MARGIN = 1 << 24


def open_places(places: Sequence[str], tasks: Sequence[str] | None) -> tuple[dict[str, Origin], str]:
    """Where the folder of each task, or of each of `tasks`, is, and in which space depths are predicted.

    places: folders or names on the hub, which say what their model predicts, or `disparity=`, `depth=` or `normals=` in
    front of them does. Raises ValueError when they do not say it, when two are for one task, or none for a task.
    """
    found: dict[str, Origin] = {}
    predicts = "disparity"
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


def files_of(origin: Origin) -> dict[str, Path]:
    """What is needed of a folder, by the names to record."""
    found = sorted({file for pattern in FILES for file in origin.folder.glob(pattern)})
    return {f"{origin.name}/{file.relative_to(origin.folder)}": file for file in found if file.is_file()}


def convert_lotus(places: Mapping[str, Origin], predicts: str, output: Path, precision: str | None) -> dict[str, Any]:
    """Write the bundle and give its manifest; `precision` as the files are if None.

    Goes on where an earlier run for the same output was killed. Raises ValueError or OSError, and leaves nothing, on
    bad input or too little room.
    """
    check_output(output)
    if precision not in (None, *PRECISIONS):
        raise ValueError(f"expected a precision of {', '.join(PRECISIONS)} for Lotus-D and Lotus-G, got {precision}")
    folders = {task: origin.folder for task, origin in places.items()}
    model, state = open_pipelines(folders, predicts=predicts)
    precision = precision or str(state[f"unets.{model.tasks[0]}.conv_in.weight"].dtype).removeprefix("torch.")
    dtype = dtype_named(precision)
    check_space(output.parent, _size(model, dtype) + SPACE_MARGIN - unfinished_size(output))
    sources = checksums({name: file for origin in places.values() for name, file in files_of(origin).items()})
    plan = {
        "format": FORMAT,
        "family": model.family,
        "versions": [__version__, torch.__version__],
        "tasks": model.tasks,
        "predicts": predicts,
        "precision": precision,
        "sources": sources,
    }
    work, dtype_of = Work(output, plan), model.dtype_of(dtype)
    with leaving_nothing(work), PrepareProgress("converting", len(parts(model))) as progress:
        for file, names in parts(model).items():
            if not (work.bundle / file).is_file():
                work.write(f"{BUNDLE}/{file}", {name: state[name].to(dtype_of(name)) for name in names})
            progress.step(file)
        model.metadata["sources"] = sources
        manifest = describe(model, dtype)
        (work.bundle / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        work.finish()
    return manifest


def _size(model: Lotus, dtype: torch.dtype) -> int:
    dtype_of = model.dtype_of(dtype)
    return sum(t.numel() * (dtype_of(name) or t.dtype).itemsize for name, t in model.state_dict().items())
