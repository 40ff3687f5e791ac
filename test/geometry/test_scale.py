import math

import pytest
import torch

from lotus2_ros.config import ScaleConfig
from lotus2_ros.geometry.depth import disparity_to_depth
from lotus2_ros.geometry.reference import Reference
from lotus2_ros.geometry.scale import Aligner

CONFIG = ScaleConfig(max_age=1.0)
DISPARITY = torch.rand(24, 36, generator=torch.Generator().manual_seed(0))
DEPTH = 1 / (0.4 * DISPARITY + 0.1)


def test_without_a_reference_the_scale_is_relative():
    scale = Aligner().align(DISPARITY, None, 5.0, ScaleConfig(relative_shift=0.2))
    assert not scale.metric and scale.source == "none" and math.isnan(scale.age)
    depth = disparity_to_depth(torch.tensor([1.0, 0.0]), scale.scale, scale.shift)
    torch.testing.assert_close(depth, torch.tensor([1.0, 6.0]))


def test_the_last_fit_is_kept_until_it_is_too_old():
    aligner = Aligner()
    assert aligner.align(DISPARITY, Reference(DEPTH, stamp=10.0), 10.0, CONFIG).age == 0.0
    kept = aligner.align(DISPARITY, None, 10.8, CONFIG)
    assert kept.metric and kept.age == pytest.approx(0.8)
    old = aligner.align(DISPARITY, None, 11.1, CONFIG)
    assert not old.metric and "1.1 s old" in old.note


def test_a_clock_that_jumps_back_forgets_the_fit():
    aligner = Aligner()
    aligner.align(DISPARITY, Reference(DEPTH, stamp=100.0), 100.0, CONFIG)
    assert not aligner.align(DISPARITY, None, 3.0, CONFIG).metric
    assert not aligner.align(DISPARITY, None, 100.0, CONFIG).metric


def test_a_bad_reference_is_noted_and_the_last_fit_kept():
    aligner = Aligner()
    aligner.align(DISPARITY, Reference(DEPTH, stamp=1.0), 1.0, CONFIG)
    sparse = torch.zeros_like(DEPTH)
    sparse[0, :3] = 2.0
    scale = aligner.align(DISPARITY, Reference(sparse, stamp=1.5), 1.5, CONFIG)
    assert scale.metric and scale.age == 0.5 and "at least 20 points, got 3" in scale.note


def test_source_none_ignores_references():
    assert not Aligner().align(DISPARITY, Reference(DEPTH), 0.0, ScaleConfig(source="none")).metric
