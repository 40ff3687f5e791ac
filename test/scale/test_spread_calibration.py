import pytest
import torch

from lotus2_ros.scale.errors import Errors
from lotus2_ros.scale.spread_calibration import INTERVAL, SpreadCalibration

POINTS = 900
NONE = torch.zeros(1, 1)


def errors(factor, seed=0, believed=1.0):
    """Errors of points from 1 to 20 m that are `factor` (N,) times as large as was said."""
    generator = torch.Generator().manual_seed(seed)
    log_depth = torch.linspace(0, 3, POINTS)
    quotient = torch.randn(POINTS, generator=generator).abs() * factor(log_depth)
    return Errors(NONE[0, 0], NONE, NONE, quotient, log_depth, torch.full((POINTS,), believed))


def test_each_range_has_its_factor():
    calibration = SpreadCalibration()
    calibration.add(errors(lambda log_depth: torch.where(log_depth < 1, 0.5, 2.0)))
    found = calibration.factor().log_at(torch.tensor([-5.0, 0.2, 2.9, 9.0])).exp()
    assert found[:2].tolist() == pytest.approx([0.5, 0.5], rel=0.4)
    assert found[2:].tolist() == pytest.approx([2.0, 2.0], rel=0.2)


def test_a_few_points_tell_little():
    calibration = SpreadCalibration()
    one = errors(lambda log_depth: 20 + 0 * log_depth)
    few = Errors(one.log_line, one.log_excess, one.reach, *(v[:3] for v in (one.quotient, one.log_depth, one.believed)))
    calibration.add(few)
    assert float(calibration.factor().log_factor.exp().max()) < 20 * 1.6 / INTERVAL


def test_it_forgets_slowly():
    calibration = SpreadCalibration()
    calibration.add(errors(lambda log_depth: 4 + 0 * log_depth))
    factors = []
    for seed in range(1, 6):
        calibration.add(errors(lambda log_depth: 1 + 0 * log_depth, seed))
        factors.append(float(calibration.factor().log_factor.exp().mean()))
    assert factors[0] > 1.3 and factors[-1] == pytest.approx(1.0, abs=0.2)


def test_points_that_are_not_believed_count_little():
    calibration = SpreadCalibration()
    right, wrong = errors(lambda log_depth: 1 + 0 * log_depth), errors(lambda log_depth: 50 + 0 * log_depth, 1, 0.0)
    calibration.add(right)
    calibration.add(wrong)
    assert float(calibration.factor().log_factor.exp().max()) < 2.5
