"""`lotus2 prepare`: from released files of either family, or a trained bundle, to a bundle that runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from lotus2_ros.config import Config, ModelConfig, add_option, walk
from lotus2_ros.model.conversion import Conversion
from lotus2_ros.model.layers.linear import PRECISIONS
from lotus2_ros.model.layers.precision import resolve_device
from lotus2_ros.model.lotus import conversion as lotus
from lotus2_ros.model.lotus.released import FILES, SAID, files_of, predicted_by
from lotus2_ros.model.lotus2.bundle import WEIGHTS, load_bundle
from lotus2_ros.model.lotus2.conversion import Lotus2Conversion
from lotus2_ros.model.lotus2.fuse import Source
from lotus2_ros.model.lotus2.released import FLUX_FILES, TASKS, flux_files, lotus2_files, open_released
from lotus2_ros.model.manifest import MANIFEST, FloatName, Space
from lotus2_ros.prepare.convert import convert
from lotus2_ros.prepare.hub import FLUX, LOTUS2, Origin, locate
from lotus2_ros.prepare.work import check_output

# Option -> parameter, whose default and choices it takes.
OPTIONS = {"--tasks": "model.tasks", "--conditioning": "model.timestep_dtype", "--device": "model.device"}
HELP = {
    "--tasks": "What the bundle can predict; auto: all there is",
    "--conditioning": "Rounding of guidance and timesteps; it cannot be changed later",
    "--device": "Where it is prepared; auto: cuda if there is a GPU",
}
GIGABYTE = 1e9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    place = "folder, or owner/name[@revision] on the Hugging Face hub, such as"
    parser.add_argument("--flux", metavar="F", help=f"FLUX.1-dev in diffusers' layout: {place} {FLUX}")
    parser.add_argument("--lotus2", metavar="L", help=f"the lotus-2_*.safetensors files: {place} {LOTUS2}")
    parser.add_argument(
        "--bundle", type=Path, metavar="B", help="instead of these: a bundle as `lotus2 train` writes it"
    )
    parser.add_argument(
        "--lotus1",
        nargs="+",
        metavar="L",
        help=f"instead of these: Lotus-D or Lotus-G, for each task a {place} jingheya/lotus-depth-d-v2-0-disparity; "
        "disparity=L, depth=L or normals=L where its name does not say what it predicts",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="BUNDLE", help="folder of the bundle, a new one")
    parser.add_argument(
        "--precision",
        choices=sorted({*PRECISIONS, *lotus.PRECISIONS}),
        help="of the transformer's weights (as its files are: bfloat16 for FLUX.1-dev)",
    )
    fields = dict(walk())
    for option, name in OPTIONS.items():
        add_option(parser, option, name, fields[name], HELP[option])


def run(args: argparse.Namespace) -> int:
    """Raises ValueError or OSError, in one line, on input that cannot be used."""
    config = Config().updated({name: getattr(args, name) for name in OPTIONS.values()}).model
    device = resolve_device(config.device)
    check_output(args.output)  # before anything is fetched
    if [bool(args.flux or args.lotus2), bool(args.bundle), bool(args.lotus1)].count(True) != 1:
        raise ValueError("expected --flux and --lotus2, or --bundle alone, or --lotus1 alone")
    if bool(args.flux) != bool(args.lotus2):
        raise ValueError("expected --flux and --lotus2 together")
    conversion_of = _lotus if args.lotus1 else _trained if args.bundle else _released
    manifest = convert(conversion_of(args, config, device), args.output)
    print(_summary(args.output, manifest))
    return 0


def _released(args: argparse.Namespace, config: ModelConfig, device: torch.device) -> Conversion:
    """Of FLUX.1-dev and the released Lotus-2 files."""
    tasks = config.wanted_tasks or TASKS
    flux = locate(args.flux, "flux", FLUX_FILES)
    lotus2 = locate(args.lotus2, "lotus2", lotus2_files(tasks))
    source = open_released(
        flux.folder, lotus2.folder, tasks=tasks, timestep_dtype=_timestep_dtype(config), device=device
    )
    files = {f"{flux.name}/{name}": flux.folder / name for name in flux_files(flux.folder)}
    files |= {f"{lotus2.name}/{name}": lotus2.folder / name for name in lotus2_files(tasks)}
    return Lotus2Conversion(source, files, precision=args.precision, device=device)


def _trained(args: argparse.Namespace, config: ModelConfig, device: torch.device) -> Conversion:
    """Of a bundle that `lotus2 train` wrote."""
    model = load_bundle(
        args.bundle,
        device=torch.device("cpu"),
        dtype=torch.float32,
        tasks=config.wanted_tasks,
        timestep_dtype=_timestep_dtype(config),
    )
    files = {f"bundle/{name}": args.bundle / name for name in (MANIFEST, WEIGHTS)}
    return Lotus2Conversion(Source.of(model), files, precision=args.precision, device=device)


def _lotus(args: argparse.Namespace, config: ModelConfig, device: torch.device) -> Conversion:
    """Of released folders of Lotus-D or Lotus-G, one for each task."""
    places, predicts = _open_places(args.lotus1, config.wanted_tasks)
    folders = {task: origin.folder for task, origin in places.items()}
    files = {
        f"{origin.name}/{name}": origin.folder / name for origin in places.values() for name in files_of(origin.folder)
    }
    return lotus.LotusConversion(folders, files, predicts=predicts, precision=args.precision)


def _open_places(places: Sequence[str], tasks: Sequence[str] | None) -> tuple[dict[str, Origin], Space]:
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


def _summary(output: Path, manifest: dict[str, Any]) -> str:
    size = sum(file.stat().st_size for file in output.iterdir())
    errors = {name: error for name, error in manifest.get("errors", {}).items() if name != "compute"}
    lines = [f"{output}: {manifest['precision']}, {size / GIGABYTE:.2f} GB"]
    lines += ["Errors against float32 of one pass:"] if errors else []
    lines += [f"  {name.replace('_', ' ')} {error:.2%}" for name, error in errors.items()]
    return "\n".join([*lines, f"Licence: {manifest['licence']}"])
