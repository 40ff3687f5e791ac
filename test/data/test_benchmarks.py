"""The protocol of the paper's tables."""

import math

import numpy as np
import pytest

from lotus2_ros.data.benchmarks import BENCHMARKS


def test_protocol():
    """As in the public evaluation: range in metres, size that is processed, size that is fitted at, images."""
    depth = {
        name: (*benchmark.depth_range, benchmark.resolution, benchmark.fit_side, benchmark.images)
        for name, benchmark in BENCHMARKS.items()
        if benchmark.task == "depth"
    }
    assert depth == {
        "nyuv2": (1e-3, 10, None, None, 654),
        "kitti": (1e-5, 80, None, None, 652),
        "eth3d": (1e-5, math.inf, 768, 1024, 454),
        "scannet": (1e-3, 10, None, None, 800),
        "diode": (0.6, 350, 640, None, 771),
    }
    normals = {name: benchmark.images for name, benchmark in BENCHMARKS.items() if benchmark.task == "normals"}
    assert normals == {"nyuv2-normals": 654, "scannet-normals": 300, "ibims1-normals": 100, "sintel-normals": 1064}
    assert all(name == benchmark.name for name, benchmark in BENCHMARKS.items())


def test_opened(write):
    write.plain("scene0406_02/color/000300.jpg", 4, 6)
    write.png16("scene0406_02/depth/000300.png", np.full((4, 6), 1500))
    (sample,) = BENCHMARKS["scannet"].open(write.root)
    assert sample.depth[0, 0] == 1.5


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_an_empty_folder_is_refused(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="in it, got none"):
        BENCHMARKS[name].open(tmp_path)
