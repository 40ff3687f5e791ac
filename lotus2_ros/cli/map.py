"""``lotus2 map IN OUT``: run the model over a recording and fuse its depth into a mesh."""

from __future__ import annotations

import argparse
from pathlib import Path

from lotus2_ros.cli.recording import add_recording_arguments, config_of, recording_of, workers_of
from lotus2_ros.config.errors import RunError
from lotus2_ros.config.output import OutputError, check_output, mark
from lotus2_ros.ros.mapping import map_recording
from lotus2_ros.ros.offline import warn_above_bar

MESH = "mesh.ply"

VOXELS = 1e-3, 10.0  # smallest and largest side, meters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, help="bag with images, measured depth or points, and poses of the camera")
    parser.add_argument("output", type=Path, help=f"folder for {MESH}")
    parser.add_argument("--topic", help="image topic of the bag, if it has several")
    add_recording_arguments(parser)
    parser.add_argument(
        "--voxel", type=float, default=0.05, metavar="METERS", help="side of a voxel (default: %(default)s)"
    )
    parser.add_argument(
        "--max-depth",
        type=float,
        default=5.0,
        metavar="METERS",
        help="leave out what is farther (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a mesh that this command wrote earlier")


def run(args: argparse.Namespace) -> int:
    """Raises RunError when there is no frame with meters and a pose."""
    from lotus2_ros.view.ply import save_mesh  # takes seconds, as do the workers

    if not (VOXELS[0] <= args.voxel <= VOXELS[1] and args.max_depth > 0):
        expected = f"--voxel of {VOXELS[0]:g} to {VOXELS[1]:g} m and a positive --max-depth"
        raise ValueError(f"expected {expected}, got {args.voxel:g} and {args.max_depth:g}")
    folder = check_output(args.output, "map", [args.input])
    if (folder / MESH).exists() and not args.overwrite:
        raise OutputError(f"{folder / MESH}: already exists; --overwrite replaces it")
    config = config_of(args).updated({"cloud.max_depth": args.max_depth})
    recording = recording_of(args, args.input, args.topic, config)
    with workers_of(args, config, recording.count) as workers:
        found = map_recording(workers, recording, config, args.voxel, warn_above_bar)
    if found.refused:
        print(f"left out: {len(found.refused)} frames, the last one because {found.refused[-1]}")
    if not found.mesh.triangles:
        raise RunError(f"{recording.name}: no surface within --max-depth {args.max_depth:g} m was seen often enough")
    mark(folder, "map")
    save_mesh(folder / MESH, found.mesh)
    sources = ", ".join(f"{count} by {source}" for source, count in found.sources.items())
    print(f"{folder / MESH}: {len(found.mesh.vertices)} vertices from {found.sources.total()} frames ({sources})")
    return 0
