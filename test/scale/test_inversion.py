"""A model that predicts depth: its disparity is right once one number is known, which normals or a reference tell."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lotus2_ros import scenes
from lotus2_ros.config import ScaleConfig
from lotus2_ros.scale.inversion import GUESSED_SHIFT, DepthInverter, invert, invert_deviation
from lotus2_ros.scale.reference import Reference

CONFIG = ScaleConfig()


class Seen:
    """A rendered view as a perfect model of depths says it: v in [0, 1], and its s."""

    def __init__(self, kind, seed):
        view = scenes.view(seed, 160, 120, kind)
        depth = view.depth.clamp(max=80.0)
        near, far = depth.min(), depth.max()
        self.depth, self.normals, self.camera = view.depth, view.normals, view.camera
        self.v = (depth - near) / (far - near)
        self.shift = float(near / (far - near))


@pytest.fixture(scope="module", params=[("room", 203), ("corridor", 201), ("desk", 203)])
def seen(request):
    return Seen(*request.param)


@given(st.floats(0.01, 20), st.floats(0.1, 50), st.integers(0, 1000))
def test_with_the_right_shift_inverse_depth_is_a_line_in_the_disparity(shift, scale, seed):
    v = torch.rand(200, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    disparity = invert(v, shift)
    assert disparity.min() >= 0 and disparity.max() <= 1
    depth = scale * (v + shift)
    expected = (disparity + shift) / (scale * shift * (1 + shift))
    torch.testing.assert_close(1 / depth, expected, rtol=1e-9, atol=0)
    near_and_far = invert(torch.tensor([0.0, 1.0]), shift)
    torch.testing.assert_close(near_and_far, torch.tensor([1.0, 0.0]))


@given(st.floats(0.05, 10), st.floats(0.0, 1.0))
def test_the_deviation_follows_the_slope(shift, at):
    v, step = torch.tensor(at, dtype=torch.float64), 1e-6
    slope = (invert(v + step, shift) - invert(v - step, shift)).abs() / (2 * step)
    deviation = invert_deviation(torch.tensor(1.0, dtype=torch.float64), v, shift)
    torch.testing.assert_close(deviation, slope, rtol=1e-4, atol=1e-9)


def test_normals_tell_the_shift(seen):
    found = DepthInverter().shift_of(seen.v, seen.normals, seen.camera, None, CONFIG)
    assert found == pytest.approx(seen.shift, rel=0.1)
    assert abs(GUESSED_SHIFT - seen.shift) > 0.5 * seen.shift  # what would be taken without them


def test_a_reference_tells_it_better(seen):
    reference = Reference(torch.where(torch.rand(120, 160) < 0.1, seen.depth.float(), torch.nan))
    found = DepthInverter().shift_of(seen.v, seen.normals, seen.camera, reference, CONFIG)
    assert found == pytest.approx(seen.shift, rel=1e-3)


def test_a_reference_of_another_time_does_not(seen):
    late = Reference(2 * seen.depth.float() + 1, stamp=3.0)
    assert DepthInverter().shift_of(seen.v, None, None, late, CONFIG, stamp=5.0) == GUESSED_SHIFT


def test_what_is_configured_is_taken(seen):
    config = ScaleConfig(relative_shift=0.4)
    assert DepthInverter().shift_of(seen.v, seen.normals, seen.camera, None, config) == 0.4


def test_what_was_measured_holds_while_nothing_is(seen):
    inverter = DepthInverter()
    measured = inverter.shift_of(seen.v, seen.normals, seen.camera, None, CONFIG)
    assert inverter.shift_of(seen.v, None, None, None, CONFIG) == measured
    flat = torch.full_like(seen.v, 0.5)
    assert inverter.shift_of(flat, seen.normals, seen.camera, None, CONFIG) == measured


def test_noise_is_averaged(seen):
    generator = torch.Generator().manual_seed(0)
    inverter = DepthInverter()
    found = []
    for _ in range(12):
        noisy = (seen.v + 0.02 * torch.randn(seen.v.shape, generator=generator)).clamp(0, 1)
        found.append(inverter.shift_of(noisy, seen.normals, seen.camera, None, CONFIG))
    assert abs(found[-1] - found[-2]) < 0.05 * seen.shift
    assert found[-1] == pytest.approx(seen.shift, rel=0.4)


def test_nothing_known_is_a_guess(seen):
    assert DepthInverter().shift_of(seen.v, None, None, None, CONFIG) == GUESSED_SHIFT
