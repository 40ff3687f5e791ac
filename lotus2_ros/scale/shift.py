"""The shift of affine-invariant disparity from surface normals: without any reference, up to one factor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lotus2_ros.scale.planes import Windows, fit_windows, pinhole_rays, pool_cells
from lotus2_ros.scale.stats import FitStats

# What scenes have, of disparity stretched to [0, 1]: in logarithms a normal distribution. It decides where the normals
# do not, as those of a small network.
TYPICAL_SHIFT = 0.15
TYPICAL_SPREAD = 1.0
SMALLEST, LARGEST = 1e-3, 30.0
# Points of ln s that are tried, and then so many times points between the neighbours of the best.
GRID, FINER_GRID, FINER = 40, 27, 2
# Windows overlap, and errors of normals reach over many: together they say as much as so many independent ones.
INDEPENDENT_WINDOWS = 30
# Radians that normals are taken to be wrong by at least: two planes in one window, a curved surface, what a network
# gets wrong everywhere.
NORMAL_ERROR = 0.1
# Radians between the optical axis and a normal that says something of the shift.
LEAST_OBLIQUE = 0.1
LEAST_WINDOWS = 8
REASONS = (
    "",
    "expected disparity that varies",
    f"expected normals of at least {LEAST_WINDOWS} windows with a plane that does not face the camera",
    "expected normals that tell the shift better than what is usual of scenes",
)


@dataclass(frozen=True)
class _Planes:
    """Of each window (..., N) two normals: the predicted one, and by disparity one along (gradient, offset + s)."""

    use: Tensor  # bool
    steepness: Tensor  # square of the gradient of disparity over x and y
    offset: Tensor  # disparity of the plane at x = y = 0
    noise: Tensor  # variance of a component of the gradient
    along: Tensor  # gradient . (n_x, n_y) of the predicted normal n, turned inward
    n_z: Tensor
    error: Tensor  # variance of n's direction, radians squared

    def misfit(self, log_s: Tensor) -> Tensor:
        """Squared angles between the two over what noise explains, (..., N) for (..., 1)."""
        h = self.offset + log_s.exp()
        squared = self.steepness + h * h
        chord = squared - (self.along + self.n_z * h) * squared.sqrt()
        return 2 * chord.clamp_min(0) / (self.noise + self.error * squared)

    def sensitivity(self, log_s: Tensor) -> Tensor:
        """Squares of d sqrt(misfit) / d ln s."""
        s = log_s.exp()
        squared = self.steepness + (self.offset + s).square()
        return self.steepness * s * s / squared / (self.noise + self.error * squared)

    def angle(self, log_s: Tensor) -> Tensor:
        """Radians between the two."""
        h = self.offset + log_s.exp()
        return ((self.along + self.n_z * h) / (self.steepness + h * h).sqrt()).clamp(-1, 1).acos()


def shift_from_normals(
    disparity: Tensor, normals: Tensor, K: Tensor, valid: Tensor, rays: Tensor | None = None
) -> tuple[Tensor, FitStats]:
    """s in depth ~ 1 / (disparity + s), from how disparity changes along surfaces whose normals are known.

    ``disparity`` (..., H, W) affine-invariant, 1 = near; ``normals`` (..., H, W, 3) unit, optical frame, toward the
    camera; ``K`` (..., 3, 3) pixels, integer centres; ``valid`` bool (..., H, W), without the sky. ``rays`` (H, W, 3),
    z = 1, stand for K's where a lens distorts; NaN is not valid.

    On a plane with normal n, disparity + s is proportional to n.r along the rays r = (x, y, 1): its gradient over x and
    y, and its value + s at x = y = 0, are together parallel to n. Planes are fitted to disparity in windows of three
    sizes, and the angle between such a normal and the predicted one, in units of what noise of both explains, is made
    small over all windows: in angles, because least squares in disparity are biased by the noise of normals; with
    Cauchy's loss at the scale of the median angle, because many windows hold more than one surface.

    Returns s (...) float64 and stats: points are windows with a plane that does not face the camera, their residual is
    the median angle in radians between the normals predicted and those of the planes. s is NaN where refused.
    """
    rays = pinhole_rays(K.to(disparity.device), *disparity.shape[-2:]) if rays is None else rays
    windows = fit_windows(pool_cells(disparity, normals, rays, valid))
    low = torch.where(windows.good, windows.disparity, math.inf).amin(-1, keepdim=True)
    high = torch.where(windows.good, windows.disparity, -math.inf).amax(-1, keepdim=True)
    varies = high - low > 1e-6 * high.abs()
    low, span = torch.where(varies, low, 0), torch.where(varies, high - low, 1)
    planes = _planes(windows, low, span)
    log_s, variance = _search(planes)
    misfit = planes.misfit(log_s)
    agrees = planes.use & (misfit < 4 * variance)
    oblique = planes.use & (planes.n_z < math.cos(LEAST_OBLIQUE))
    points = oblique.sum(-1)
    # What windows know of ln s, in units of what is known of it beforehand.
    information = INDEPENDENT_WINDOWS * TYPICAL_SPREAD**2 * _mean(planes.sensitivity(log_s) / variance, agrees)
    refusal = torch.where(information < 1, 3, 0).squeeze(-1)
    refusal = torch.where(points < LEAST_WINDOWS, 2, refusal)
    refusal = torch.where(varies.squeeze(-1), refusal, 1)
    shift = torch.where(refusal == 0, (log_s.exp() * span - low).squeeze(-1), torch.nan)
    angle = torch.where(oblique, planes.angle(log_s), torch.nan).nanmedian(-1).values
    return shift, FitStats(points, _mean(agrees.double(), oblique).squeeze(-1), angle, refusal, REASONS)


def _planes(windows: Windows, low: Tensor, span: Tensor) -> _Planes:
    """With disparity stretched from [low, low + span] to [0, 1]."""
    gradient = windows.gradient / span[..., None]
    offset = (windows.disparity - low) / span - (gradient * windows.ray).sum(-1)
    inward = -windows.normal
    return _Planes(
        windows.good, gradient.square().sum(-1), offset, windows.gradient_variance / span.square(),
        (gradient * inward[..., :2]).sum(-1), inward[..., 2], windows.normal_variance + NORMAL_ERROR**2,
    )  # fmt: skip


def _search(planes: _Planes) -> tuple[Tensor, Tensor]:
    """ln s of the least cost and the scale of misfits there, (..., 1)."""
    ones = torch.ones_like(planes.offset[..., :1])
    share = planes.use / planes.use.sum(-1, keepdim=True).clamp_min(1)
    tilt = share * (1 - planes.n_z.square())

    def around(middle: Tensor | float, step: float, count: int) -> Tensor:
        steps = step * torch.arange(-(count // 2), count - count // 2, dtype=ones.dtype, device=ones.device)
        return middle + steps.reshape(-1, *[1] * ones.ndim) * ones

    low, high = math.log(SMALLEST), math.log(LARGEST)
    step = (high - low) / GRID
    grid, variance = around((low + high) / 2, step, GRID), ones
    for _ in range(1 + FINER):
        misfit = planes.misfit(grid)
        loss = ((misfit / variance).log1p() * share).sum(-1, keepdim=True)
        prior = (grid - math.log(TYPICAL_SHIFT)).square() / (2 * INDEPENDENT_WINDOWS * TYPICAL_SPREAD**2)
        best = (loss + prior).argmin(0, keepdim=True)
        log_s = grid.gather(0, best)[0]
        variance = _typical(misfit.gather(0, best.expand(1, *share.shape))[0], tilt)
        step *= 3 / FINER_GRID
        grid = around(log_s, step, FINER_GRID)
    return log_s, variance


def _typical(misfit: Tensor, weight: Tensor) -> Tensor:
    """Weighted median, (..., 1) of (..., N)."""
    misfit, order = misfit.sort(-1)
    below = weight.gather(-1, order).cumsum(-1)
    middle = (below < below[..., -1:] / 2).sum(-1, keepdim=True).clamp_max(misfit.shape[-1] - 1)
    return misfit.gather(-1, middle).clamp_min(1e-12)


def _mean(values: Tensor, use: Tensor) -> Tensor:
    return (values * use).sum(-1, keepdim=True) / use.sum(-1, keepdim=True).clamp_min(1)
