import pytest
import torch
from torch.nn import functional as F

from lotus2_ros.training.batches import Batch
from lotus2_ros.training.decoded import SHIFT, decoded_error, surface_normals


class Decoder:
    """A model whose latent is the annotation itself."""

    def decode(self, latent):
        return latent * 0.5 + 0.5


def batch_of(task, annotation, valid=None):
    if valid is None:
        valid = torch.ones(len(annotation), 1, *annotation.shape[2:], dtype=torch.bool)
    return Batch(task, torch.zeros_like(annotation), annotation, valid, seed=0)


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


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("task", ["depth", "normals"])
def test_the_truth_has_no_error(task, power):
    truth = plane((0.3, -0.5, 1.0)) if task == "depth" else F.normalize(torch.randn(1, 3, 24, 32), dim=1)
    values, angles = decoded_error(Decoder(), truth.clone(), batch_of(task, truth), power)
    assert float(values) == pytest.approx(0, abs=1e-6) and float(angles) < 0.01


def test_angles_are_one_minus_the_cosine_or_chords():
    truth = torch.tensor([0.0, 0.0, 1.0])[None, :, None, None].expand(2, 3, 8, 12)
    tilted = torch.tensor([0.0, 3**0.5 / 2, 0.5])[None, :, None, None].expand(2, 3, 8, 12)
    values, angles = decoded_error(Decoder(), tilted, batch_of("normals", truth), 2)
    assert float(angles) == pytest.approx(0.5, abs=1e-6)
    assert float(decoded_error(Decoder(), tilted, batch_of("normals", truth), 1)[1]) == pytest.approx(1, abs=1e-4)
    assert float(values) == pytest.approx((3**0.5 / 2 + 0.5) / 3, abs=1e-6)
    wall, floor = plane((0.0, 0.0, 1.0)), plane((0.0, 1.0, 1.0))
    assert float(decoded_error(Decoder(), floor, batch_of("depth", wall), 2)[1]) == pytest.approx(
        1 - 0.5**0.5, abs=1e-4
    )


def test_bumps_cost_angles_and_an_offset_does_not():
    wall = plane((0.0, 0.0, 1.0))
    bumps = 0.05 * torch.sin(torch.arange(32) * 0.8)
    offset = wall + bumps.abs().mean()
    bumpy_values, bumpy = decoded_error(Decoder(), wall + bumps, batch_of("depth", wall), 2)
    flat_values, flat = decoded_error(Decoder(), offset, batch_of("depth", wall), 2)
    assert float(bumpy_values) == pytest.approx(float(flat_values), rel=0.05)
    assert float(bumpy) > 0.1 and float(flat) < 1e-5


@pytest.mark.parametrize("task", ["depth", "normals"])
def test_what_is_not_valid_does_not_count(task):
    truth = plane((0.3, -0.5, 1.0)) if task == "depth" else F.normalize(torch.randn(1, 3, 24, 32), dim=1)
    spoilt = truth.clone()
    spoilt[:, :, 8:12, 4:16] = 0.9
    valid = torch.ones(1, 1, 24, 32, dtype=torch.bool)
    counted = decoded_error(Decoder(), spoilt, batch_of(task, truth, valid), 2)
    assert min(map(float, counted)) > 1e-3
    valid[:, :, 8:12, 4:16] = False
    left_out = decoded_error(Decoder(), spoilt, batch_of(task, truth, valid), 2)
    assert max(map(float, left_out)) < 1e-6
    assert all(
        torch.isfinite(each) for each in decoded_error(Decoder(), spoilt, batch_of(task, truth, valid & False), 2)
    )
