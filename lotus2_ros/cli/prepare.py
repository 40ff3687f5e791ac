"""``lotus2 prepare``: convert released files of either family, or a trained bundle, to a bundle that runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lotus2_ros.config import Config, add_option, walk
from lotus2_ros.config.output import check_apart
from lotus2_ros.config.precisions import LOTUS_PRECISIONS, PRECISIONS
from lotus2_ros.prepare.space import GIGABYTE

FLUX, LOTUS2 = "black-forest-labs/FLUX.1-dev", "jingheya/Lotus-2"
# Option -> parameter, whose default and choices it takes.
OPTIONS = {"--tasks": "model.tasks", "--timestep-dtype": "model.timestep_dtype", "--device": "model.device"}
HELP = {
    "--tasks": "What the bundle will predict; auto: all tasks of the files",
    "--timestep-dtype": "Dtype to which guidance and timesteps are rounded; it cannot be changed later",
    "--device": "Where the conversion runs; auto: cuda if there is a GPU",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    place = "folder, or owner/name[@revision] on the Hugging Face hub, such as"
    parser.add_argument(
        "--flux",
        metavar="F",
        help=f"FLUX.1-dev in diffusers' layout: {place} {FLUX}; flux1-dev.safetensors may be in place of transformer/, "
        "in the folder or named here",
    )
    parser.add_argument("--lotus2", metavar="L", help=f"the lotus-2_*.safetensors files: {place} {LOTUS2}")
    parser.add_argument(
        "--bundle", type=Path, metavar="B", help="instead of --flux and --lotus2: a bundle that `lotus2 train` wrote"
    )
    parser.add_argument(
        "--lotus1",
        nargs="+",
        metavar="L",
        help=f"instead of --flux and --lotus2: Lotus-D or Lotus-G, for each task a {place} "
        "jingheya/lotus-depth-d-v2-0-disparity; write disparity=L, depth=L or normals=L if the name does not say so",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="BUNDLE", help="new folder for the bundle")
    parser.add_argument(
        "--precision",
        choices=tuple(dict.fromkeys((*PRECISIONS, *LOTUS_PRECISIONS))),
        help=f"number format of the network's weights: {', '.join(PRECISIONS)} for Lotus-2; "
        f"{', '.join(LOTUS_PRECISIONS)} for Lotus-D and Lotus-G (default: that of the files, bfloat16 for FLUX.1-dev)",
    )
    fields = dict(walk())
    for option, name in OPTIONS.items():
        add_option(parser, option, name, fields[name], HELP[option])


def run(args: argparse.Namespace) -> int:
    print(f"preparing {args.output}", flush=True)
    # Imported only now, because it takes seconds, in which a user should see that something happens.
    from lotus2_ros.model.layers.precision import resolve_device
    from lotus2_ros.prepare.convert import convert
    from lotus2_ros.prepare.sources import from_lotus, from_released, from_trained
    from lotus2_ros.prepare.work import check_new

    config = Config().updated({name: getattr(args, name) for name in OPTIONS.values()}).model
    device = resolve_device(config.device)
    check_new(args.output)  # before anything is fetched
    check_apart(args.output, local_inputs(args))
    if [bool(args.flux or args.lotus2), bool(args.bundle), bool(args.lotus1)].count(True) != 1:
        raise ValueError("expected --flux and --lotus2, or --bundle alone, or --lotus1 alone")
    if bool(args.flux) != bool(args.lotus2):
        raise ValueError("expected --flux and --lotus2 together")
    if args.lotus1:
        conversion = from_lotus(args.lotus1, config, output=args.output, precision=args.precision)
    elif args.bundle:
        conversion = from_trained(args.bundle, config, precision=args.precision, device=device)
    else:
        conversion = from_released(
            args.flux, args.lotus2, config, output=args.output, precision=args.precision, device=device
        )
    print(summary(args.output, convert(conversion, args.output)))
    return 0


def local_inputs(args: argparse.Namespace) -> list[Path]:
    """The inputs that are folders of this machine, not names on the hub."""
    places = [args.flux, args.lotus2, args.bundle, *(text.partition("=")[2] or text for text in args.lotus1 or ())]
    return [Path(place) for place in places if place and Path(place).exists()]


def summary(output: Path, manifest: dict[str, Any]) -> str:
    size = sum(file.stat().st_size for file in output.iterdir())
    errors = {name: error for name, error in manifest.get("errors", {}).items() if name != "compute"}
    lines = [f"{output}: {manifest['precision']}, {size / GIGABYTE:.2f} GB"]
    lines += ["Errors against float32 of one pass:"] if errors else []
    lines += [f"  {name.replace('_', ' ')} {error:.2%}" for name, error in errors.items()]
    return "\n".join([*lines, f"License: {manifest['licence']}"])
