import math

import pytest
import torch

from lotus2_ros.config import ScaleConfig
from lotus2_ros.geometry.depth import disparity_to_depth
from lotus2_ros.geometry.scale import Aligner, Reference, fit_to_reference

CONFIG = ScaleConfig(max_age=1.0)
DISPARITY = torch.rand(24, 36, generator=torch.Generator().manual_seed(0))
DEPTH = 1 / (0.4 * DISPARITY + 0.1)


def test_fit_to_a_sparse_reference():
    sparse = torch.full_like(DEPTH, torch.nan)
    sparse[::5, ::3] = DEPTH[::5, ::3]
    scale = fit_to_reference(DISPARITY, Reference(sparse))
    assert (scale.scale, scale.shift) == (pytest.approx(0.4, rel=1e-4), pytest.approx(0.1, rel=1e-4))
    assert scale.metric and scale.source == "reference_depth" and scale.inlier_fraction == 1.0


@pytest.mark.parametrize("invalid", [0.0, math.nan, math.inf, -1.0])
def test_invalid_pixels_of_a_reference_do_not_count(invalid):
    depth = DEPTH.clone()
    depth[:20] = invalid
    assert fit_to_reference(DISPARITY, Reference(depth)).scale == pytest.approx(0.4, rel=1e-4)


def test_a_reference_of_another_size_falls_on_the_right_pixels():
    coarse = DEPTH[1::2, 1::2]  # each is the lower right of a 2x2 block, whose centre is the nearest pixel
    scale = fit_to_reference(DISPARITY, Reference(coarse))
    assert scale.scale == pytest.approx(0.4, rel=1e-4)
    transposed = fit_to_reference(DISPARITY.T.contiguous(), Reference(coarse.T.contiguous()))
    assert transposed.scale == pytest.approx(scale.scale, rel=1e-6)


def test_without_a_reference_the_scale_is_relative():
    scale = Aligner().align(DISPARITY, None, 5.0, CONFIG)
    assert not scale.metric and scale.source == "none" and math.isnan(scale.age)
    depth = disparity_to_depth(torch.tensor([1.0, 0.0]), scale.scale, scale.shift)
    near_to_far = (1 + CONFIG.relative_shift) / CONFIG.relative_shift
    torch.testing.assert_close(depth, torch.tensor([1.0, near_to_far]))


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
