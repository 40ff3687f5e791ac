"""The data sets of the paper's tables, with its protocol (arXiv 2512.01030; the public evaluation of Lotus-2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lotus2_ros.data.sample import Sample


@dataclass(frozen=True)
class Benchmark:
    """How a data set is evaluated. Crops and masks are the reader's: pixels that do not count are NaN in its truth.

    open: folder (or tar) to samples; depth_range: metres that predicted depth is clipped to; resolution: longer side of
    the image that the model is given, None as the model likes it; fit_side: longer side of the nearest pixels that
    scale and shift are fitted to, None all; images: how many the published figures are of.
    """

    name: str
    task: Literal["depth", "normals"]
    open: Callable[[Path], Sequence[Sample]]
    images: int
    depth_range: tuple[float, float] | None = None
    resolution: int | None = None
    fit_side: int | None = None


BENCHMARKS: dict[str, Benchmark] = {}
