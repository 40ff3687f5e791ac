import math

import pytest
import torch

from lotus2_ros.geometry.reference import Reference, fit_to_reference

DISPARITY = torch.rand(24, 36, generator=torch.Generator().manual_seed(0))
DEPTH = 1 / (0.4 * DISPARITY + 0.1)


def test_fit_to_a_sparse_reference():
    sparse = torch.full_like(DEPTH, torch.nan)
    sparse[::5, ::3] = DEPTH[::5, ::3]
    scale, shift, stats = fit_to_reference(DISPARITY, Reference(sparse))
    assert (scale, shift) == (pytest.approx(0.4, rel=1e-4), pytest.approx(0.1, rel=1e-4))
    assert stats.inlier_fraction == 1.0


@pytest.mark.parametrize("invalid", [0.0, math.nan, math.inf, -1.0])
def test_invalid_pixels_of_a_reference_do_not_count(invalid):
    depth = DEPTH.clone()
    depth[:20] = invalid
    assert fit_to_reference(DISPARITY, Reference(depth))[0] == pytest.approx(0.4, rel=1e-4)


def test_a_reference_of_another_size_falls_on_the_right_pixels():
    coarse = DEPTH[1::2, 1::2]  # each is the lower right of a 2x2 block, whose centre is the nearest pixel
    scale, _, _ = fit_to_reference(DISPARITY, Reference(coarse))
    assert scale == pytest.approx(0.4, rel=1e-4)
    transposed, _, _ = fit_to_reference(DISPARITY.T.contiguous(), Reference(coarse.T.contiguous()))
    assert transposed == pytest.approx(scale, rel=1e-6)
