"""Sources of scale, shift, ground, lidar, odometry, field, sigma, steadiness, clouds, floor and time in one table.

    python -m benchmarks.alignment [--frames FOLDER] [--only fit,shift,...] [--quick] [--output FILE]

``--frames`` is a folder of recorded RGB-D frames and lidar sweeps, one folder each, and of sequences with poses.txt;
without it only rendered scenes are used. The exit status is 1 if a figure misses what is wanted of it; with ``--quick``
nothing is expected of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.geometry.figure import Figure
from benchmarks.timing import machine, markdown

HEADER = ("what", "case", "measured", "wanted", "", "beside")
# Each a module of benchmarks.geometry with figures(frames, quick).
PARTS = (
    "sources",
    "fit",
    "shift",
    "ground",
    "lidar",
    "odometry",
    "field",
    "sigma",
    "steadiness",
    "clouds",
    "floor",
    "speed",
)
Part = Callable[[Path | None, bool], Iterator[Figure]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, help="folder of recorded frames")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument(
        "--quick", action="store_true", help="few scenes and draws: whether it runs, not how good it is"
    )
    parser.add_argument("--output", type=Path, help="write the table there too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: list[Figure] = []
    for name in args.only.split(","):
        part: Part = import_module(f"benchmarks.geometry.{name}").figures
        for figure in part(args.frames, args.quick):
            found.append(figure)
            print(_line(figure), flush=True)
    table = f"{machine(torch.device('cpu'))}, one thread\n\n{markdown(HEADER, [_cells(figure) for figure in found])}\n"
    print(f"\n{table}")
    if args.output:
        args.output.write_text(table)
    return 0 if args.quick or all(figure.met for figure in found) else 1


def _cells(figure: Figure) -> tuple[str, ...]:
    wanted = "" if figure.wanted is None else f"<= {figure.wanted:g} {figure.unit}"
    verdict = "" if figure.wanted is None else "met" if figure.met else "missed"
    return (figure.what, figure.case, f"{figure.measured:.3g} {figure.unit}", wanted, verdict, figure.beside)


def _line(figure: Figure) -> str:
    return markdown(HEADER, [_cells(figure)]).splitlines()[-1]


if __name__ == "__main__":
    sys.exit(main())
