"""The data sets of the paper's tables, with its protocol (arXiv 2512.01030; the public evaluation of Lotus-2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lotus2_ros.data.depth_benchmarks import DIODE, ETH3D, KITTI, NYUv2, ScanNet
from lotus2_ros.data.normals_benchmarks import IBims1Normals, NYUv2Normals, ScanNetNormals, SintelNormals
from lotus2_ros.data.sample import Sample


@dataclass(frozen=True)
class Benchmark:
    """How a data set is evaluated. Crops and masks are the reader's: pixels that do not count are NaN in its truth.

    open: folder (or tar) to samples; depth_range: meters that predicted depth is clipped to; resolution: longer side of
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


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("nyuv2", "depth", NYUv2, 654, NYUv2.depth_range),
        Benchmark("kitti", "depth", KITTI, 652, KITTI.depth_range),
        Benchmark("eth3d", "depth", ETH3D, 454, ETH3D.depth_range, resolution=768, fit_side=1024),
        Benchmark("scannet", "depth", ScanNet, 800, ScanNet.depth_range),
        Benchmark("diode", "depth", DIODE, 771, DIODE.depth_range, resolution=640),
        Benchmark("nyuv2-normals", "normals", NYUv2Normals, 654),
        Benchmark("scannet-normals", "normals", ScanNetNormals, 300),
        Benchmark("ibims1-normals", "normals", IBims1Normals, 100),
        Benchmark("sintel-normals", "normals", SintelNormals, 1064),
    )
}
