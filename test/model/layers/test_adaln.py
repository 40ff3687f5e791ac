"""The modulation as a function of the timestep."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lotus2_ros.model.layers.adaln import AdaLN, Timesteps, chebyshev, fit_curve


def curve(timesteps: Tensor) -> Tensor:
    """Smooth, of different speeds, one component constant."""
    t = timesteps.double()
    return torch.stack((torch.sin(t), torch.exp(-t), torch.sin(3 * t) / (1 + t), torch.full_like(t, 2.0)), dim=1)


def test_any_timestep_comes_out_not_only_those_it_was_fitted_at() -> None:
    polynomials, vectors = fit_curve(curve, 10.0)
    timesteps = torch.tensor([0.0, 1e-3, 1.0, 3.14159, 9.999, 10.0])
    fitted = chebyshev(timesteps, 10.0, len(polynomials)).float() @ polynomials[:, :-1] @ vectors
    assert torch.allclose(fitted.double(), curve(timesteps), atol=1e-6)
    assert vectors.shape[0] == polynomials.shape[1] - 1 <= 4


def test_polynomials_are_those_of_chebyshev() -> None:
    t = torch.tensor([0.0, 2.0, 7.0, 10.0])
    x = 2 * t.double() / 10 - 1
    assert torch.allclose(chebyshev(t, 10.0, 3), torch.stack((torch.ones(4), x, 2 * x * x - 1), dim=1).double())


def test_a_block_gets_weight_times_curve_plus_bias_and_one_for_its_scales() -> None:
    polynomials, vectors = fit_curve(curve, 10.0)
    timesteps = Timesteps(10.0, *polynomials.shape)
    timesteps.polynomials = polynomials
    block = AdaLN(["first", "second"], 2, (1,), 3, polynomials.shape[1])
    layers = [(torch.randn(6, 4), torch.randn(6)) for _ in block.modulation_sources]
    basis = block.fuse_modulation(vectors, layers)
    assert basis.shape == block.modulation.shape
    t = torch.tensor([1.0, 6.5])
    expected = torch.cat([curve(t).float() @ weight.T + bias for weight, bias in layers], dim=1)
    expected[:, 3:6] += 1
    expected[:, 9:12] += 1
    assert torch.allclose(timesteps(t) @ basis, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda t: torch.where(t > 5, 1.0, 0.0)[:, None], "expected a smooth timestep embedding"),
        (lambda t: torch.where(t > 5, math.nan, 0.0)[:, None], "expected a finite embedding of the timestep"),
    ],
)
def test_what_no_polynomial_fits_is_refused(wrong, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_curve(wrong, 10.0)
