import pytest
import torch
from torch.nn import functional as F

from lotus2_ros.training.batches import Batch
from lotus2_ros.training.decoded import SHIFT, decoded_error, surface_normals


class Decoder:
    """A model whose latent is the annotation itself."""

    def decode_unclamped(self, latent):
        return latent * 0.5 + 0.5

    def decode(self, latent):
        return self.decode_unclamped(latent).clamp(0, 1)


def error(task, answer, truth, *, valid=None, power=2, relative=False):
    """Of values and of angles."""
    if valid is None:
        valid = torch.ones(len(truth), 1, *truth.shape[2:], dtype=torch.bool)
    batch = Batch(task, torch.zeros_like(truth), truth, valid, seed=0)
    return decoded_error(Decoder(), answer, batch, power=power, relative=relative)


def plane(m, height=24, width=32):
    """The disparity annotation (1, 3, H, W) of the plane 1 / z = m . r, under the camera of `surface_normals`."""
    u = (torch.arange(width) - (width - 1) / 2) / width
    v = (torch.arange(height) - (height - 1) / 2) / width
    disparity = m[0] * u + m[1] * v[:, None] + m[2]
    return (disparity - SHIFT).expand(1, 3, height, width)


@pytest.mark.parametrize("m", [(0.0, 0.0, 1.0), (0.8, 0.0, 1.2), (0.0, 1.5, 1.0), (-0.7, 0.9, 1.1)])
def test_normals_of_a_plane_are_its_own(m):
    disparity = plane(m)[:, :1]
    assert disparity.abs().max() <= 1
    expected = F.normalize(torch.tensor(m), dim=0)[:, None, None].expand(3, 23, 31)
    torch.testing.assert_close(surface_normals(disparity)[0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("task", ["depth", "normals"])
def test_the_truth_has_no_error(task, power, relative):
    truth = plane((0.3, -0.5, 1.0)) if task == "depth" else F.normalize(torch.randn(1, 3, 24, 32), dim=1)
    values, angles = error(task, truth.clone(), truth, power=power, relative=relative)
    assert float(values) == pytest.approx(0, abs=1e-6) and float(angles) < 0.01


def test_angles_are_one_minus_the_cosine_or_chords():
    truth = torch.tensor([0.0, 0.0, 1.0])[None, :, None, None].expand(2, 3, 8, 12)
    tilted = torch.tensor([0.0, 3**0.5 / 2, 0.5])[None, :, None, None].expand(2, 3, 8, 12)
    values, angles = error("normals", tilted, truth)
    assert float(angles) == pytest.approx(0.5, abs=1e-6)
    assert float(error("normals", tilted, truth, power=1)[1]) == pytest.approx(1, abs=1e-4)
    assert float(values) == pytest.approx((3**0.5 / 2 + 0.5) / 3, abs=1e-6)
    wall, floor = plane((0.0, 0.0, 1.0)), plane((0.0, 1.0, 1.0))
    assert float(error("depth", floor, wall)[1]) == pytest.approx(1 - 0.5**0.5, abs=1e-4)


def test_bumps_cost_angles_and_an_offset_does_not():
    wall = plane((0.0, 0.0, 1.0))
    bumps = 0.05 * torch.sin(torch.arange(32) * 0.8)
    bumpy_values, bumpy = error("depth", wall + bumps, wall)
    flat_values, flat = error("depth", wall + bumps.abs().mean(), wall)
    assert float(bumpy_values) == pytest.approx(float(flat_values), rel=0.05)
    assert float(bumpy) > 0.1 and float(flat) < 1e-5


def test_relative_errors_are_shares_of_the_disparity():
    """The same offset on a wall four times as far off: a quarter of the disparity, four times the error."""
    near, far = plane((0.0, 0.0, 1.6)), plane((0.0, 0.0, 0.4))
    for wall, disparity in ((near, 1.6), (far, 0.4)):
        assert float(error("depth", wall + 0.1, wall, relative=True)[0]) == pytest.approx(0.1 / disparity, abs=1e-5)
        assert float(error("depth", wall + 0.1, wall)[0]) == pytest.approx(0.1, abs=1e-5)


def test_an_answer_beyond_the_range_is_put_right_by_relative_errors_only():
    truth = plane((0.0, 0.0, 0.4))
    for relative in (False, True):
        answer = (truth - 0.5).requires_grad_()  # below -1, so decoded below 0
        error("depth", answer, truth, relative=relative)[0].backward()
        assert bool((answer.grad < 0).all()) == relative
        assert bool((answer.grad == 0).all()) != relative


@pytest.mark.parametrize("task", ["depth", "normals"])
def test_what_is_not_valid_does_not_count(task):
    truth = plane((0.3, -0.5, 1.0)) if task == "depth" else F.normalize(torch.randn(1, 3, 24, 32), dim=1)
    spoilt = truth.clone()
    spoilt[:, :, 8:12, 4:16] = 0.9
    valid = torch.ones(1, 1, 24, 32, dtype=torch.bool)
    assert min(map(float, error(task, spoilt, truth, valid=valid))) > 1e-3
    valid[:, :, 8:12, 4:16] = False
    assert max(map(float, error(task, spoilt, truth, valid=valid))) < 1e-6
    assert all(torch.isfinite(each) for each in error(task, spoilt, truth, valid=valid & False))
