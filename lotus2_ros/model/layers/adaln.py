"""adaLN modulation (shift, scale, gate) as a function of the timestep alone.

Guidance and pooled prompt are constant, so modulation(t) = W s(t) + b with a smooth curve s. On [0, highest] that curve
is a combination of a few dozen fixed vectors, whose coefficients are polynomials of t, to float32 precision. Only W
times these vectors is stored, instead of FLUX's 3.2 G modulation parameters. The modulation at any timestep is then one
small matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

# Relative to the largest value: singular values that are dropped, and the error allowed between the fitted points.
TRUNCATION, TOLERANCE = 1e-7, 1e-6
FEWEST, MOST = 32, 2048


class AdaLN(nn.Module):
    """A block with adaLN. `modulation` (K, n) is its part of the basis, n = rows x width for each source.

    sources: the adaLN layers that it replaces. scales: the rows of a source that are scales; they hold 1 + scale.
    """

    modulation: Tensor

    def __init__(self, sources: Sequence[str], rows: int, scales: Sequence[int], width: int, rank: int) -> None:
        super().__init__()
        self.modulation_sources, self.rows, self.scales = tuple(sources), rows, tuple(scales)
        self.register_buffer("modulation", torch.empty(rank, len(sources) * rows * width))

    def fuse_modulation(self, curve: Tensor, weights: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """The basis of this block, from that of the curve (K - 1, D) and from weight and bias of each source."""
        parts = []
        for weight, bias in weights:
            constant = bias.clone().unflatten(0, (self.rows, -1))
            constant[list(self.scales)] += 1
            parts.append(torch.cat((curve @ weight.T, constant.reshape(1, -1))))
        return torch.cat(parts, dim=1)


class Timesteps(nn.Module):
    """The coefficients of the basis vectors at a timestep."""

    polynomials: Tensor

    def __init__(self, highest: float, degrees: int, rank: int) -> None:
        super().__init__()
        self.highest = highest
        self.register_buffer("polynomials", torch.empty(degrees, rank))

    def forward(self, timesteps: Tensor) -> Tensor:
        """timesteps (B,) in [0, highest] -> (B, K)."""
        return chebyshev(timesteps, self.highest, len(self.polynomials)).to(self.polynomials) @ self.polynomials


def chebyshev(timesteps: Tensor, highest: float, degrees: int) -> Tensor:
    """The first Chebyshev polynomials at timesteps (B,) in [0, highest]: (B, degrees) float64."""
    exact = timesteps if torch.onnx.is_in_onnx_export() else timesteps.double()  # TensorRT has no float64
    angle = torch.acos((2 * exact / highest - 1).clamp(-1, 1))
    return torch.cos(angle[:, None] * torch.arange(degrees, device=timesteps.device))


def fit_curve(curve: Callable[[Tensor], Tensor], highest: float) -> tuple[Tensor, Tensor]:
    """polynomials (N, K) and vectors (K - 1, D), float32, so that Chebyshev(t) @ polynomials[:, :-1] @ vectors = s(t).

    `curve`: timesteps (B,) float64 -> s (B, D). The last column of the polynomials is the constant 1. Raises ValueError
    if the curve is not smooth enough for that, or not finite.
    """
    degrees = FEWEST
    while True:
        angles = (torch.arange(degrees, dtype=torch.float64) + 0.5) * math.pi / degrees
        nodes = (torch.cos(angles) + 1) / 2 * highest
        values = curve(nodes).double()
        if not bool(values.isfinite().all()):
            raise ValueError("expected a finite embedding of the timestep, got NaN or Inf")
        # A discrete cosine transform: the polynomials are orthogonal over these nodes.
        coefficients = 2 / degrees * chebyshev(nodes, highest, degrees).T @ values
        coefficients[0] /= 2
        between = torch.linspace(0, highest, 2 * degrees + 1, dtype=torch.float64)
        truth = curve(between).double()
        fitted = chebyshev(between, highest, degrees) @ coefficients
        if float((fitted - truth).abs().max()) <= TOLERANCE * float(truth.abs().max()):
            break
        if degrees >= MOST:
            raise ValueError(f"expected a smooth timestep embedding, got one that {degrees} polynomials do not fit")
        degrees *= 2
    left, sizes, right = torch.linalg.svd(coefficients, full_matrices=False)
    rank = int((sizes > TRUNCATION * sizes[0]).sum())
    constant = torch.zeros(degrees, 1, dtype=torch.float64)
    constant[0] = 1
    polynomials = torch.cat((left[:, :rank] * sizes[:rank], constant), dim=1)
    return polynomials.float(), right[:rank].float()
