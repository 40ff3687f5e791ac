"""A model that predicts depth: its disparity is right once one number is known, which normals or a reference tell."""

import pytest
import torch

from lotus2_ros import scenes
from lotus2_ros.config import ScaleConfig
from lotus2_ros.scale.depth_shift import DepthShiftEstimator
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.scale import DEFAULT_SHIFT

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


def test_normals_tell_the_shift(seen):
    found = DepthShiftEstimator().update(seen.v, seen.normals, seen.camera, None, CONFIG)
    assert found == pytest.approx(seen.shift, rel=0.1)
    assert abs(DEFAULT_SHIFT - seen.shift) > 0.5 * seen.shift  # what would be taken without them


def test_a_reference_tells_it_better(seen):
    reference = Reference(torch.where(torch.rand(120, 160) < 0.1, seen.depth.float(), torch.nan))
    found = DepthShiftEstimator().update(seen.v, seen.normals, seen.camera, reference, CONFIG)
    assert found == pytest.approx(seen.shift, rel=1e-3)


def test_a_reference_of_another_time_does_not(seen):
    late = Reference(2 * seen.depth.float() + 1, stamp=3.0)
    assert DepthShiftEstimator().update(seen.v, None, None, late, CONFIG, stamp=5.0) == DEFAULT_SHIFT


def test_what_is_configured_is_taken(seen):
    config = ScaleConfig(relative_shift=0.4)
    assert DepthShiftEstimator().update(seen.v, seen.normals, seen.camera, None, config) == 0.4


def test_what_was_measured_holds_while_nothing_is(seen):
    estimator = DepthShiftEstimator()
    measured = estimator.update(seen.v, seen.normals, seen.camera, None, CONFIG)
    assert estimator.update(seen.v, None, None, None, CONFIG) == measured
    flat = torch.full_like(seen.v, 0.5)
    assert estimator.update(flat, seen.normals, seen.camera, None, CONFIG) == measured


def test_noise_is_averaged(seen):
    generator = torch.Generator().manual_seed(0)
    estimator = DepthShiftEstimator()
    found = []
    for _ in range(12):
        noisy = (seen.v + 0.02 * torch.randn(seen.v.shape, generator=generator)).clamp(0, 1)
        found.append(estimator.update(noisy, seen.normals, seen.camera, None, CONFIG))
    assert abs(found[-1] - found[-2]) < 0.05 * seen.shift
    assert found[-1] == pytest.approx(seen.shift, rel=0.4)


def test_nothing_known_is_a_guess(seen):
    assert DepthShiftEstimator().update(seen.v, None, None, None, CONFIG) == DEFAULT_SHIFT
