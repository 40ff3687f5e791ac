"""shift / scale of affine-invariant disparity from surface normals, without any reference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lotus2_ros.config import ScaleConfig
from lotus2_ros.scale.fit import FitStats
from lotus2_ros.scale.planes import Cells, Windows, fit_windows, pinhole_rays, pool_cells
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.scale import RelativeGeometry, Scale, relative_scale

# Prior of ln s, for disparity stretched to [0, 1]: mean exp(.) and standard deviation of a normal distribution over
# scenes. It decides where the normals do not, for example those of a small network.
PRIOR_SHIFT = 0.15
PRIOR_SPREAD = 1.0
MIN_SHIFT, MAX_SHIFT = 1e-3, 30.0
# Grid points of the search over ln s, of each refinement between the neighbors of the best point, and refinements.
GRID, FINE_GRID, REFINEMENTS = 40, 27, 2
# Windows overlap, and errors of normals extend over many windows: the windows together weigh as many independent ones.
INDEPENDENT_WINDOWS = 30
# Smallest error of normals, radians: two planes in one window, a curved surface, systematic errors of a network.
NORMAL_ERROR = 0.1
# Smallest angle between the optical axis and a normal that constrains the shift, radians.
MIN_OBLIQUENESS = 0.1
MIN_WINDOWS = 8
REASONS = (
    "",
    "expected disparity that varies",
    f"expected normals of at least {MIN_WINDOWS} windows with a plane that does not face the camera",
    "expected normals that determine the shift better than the prior over scenes does",
)


@dataclass(frozen=True)
class _Planes:
    """The windows (..., N), each with two normals: the predicted one, and the plane's, along (gradient, offset + s)."""

    use: Tensor  # bool
    steepness: Tensor  # squared gradient of disparity over x and y
    offset: Tensor  # disparity of the plane at x = y = 0
    noise: Tensor  # variance of a component of the gradient
    along: Tensor  # gradient . (n_x, n_y) of the predicted normal n, turned inward
    n_z: Tensor
    error: Tensor  # variance of n's direction, radians squared

    def misfit(self, log_s: Tensor) -> Tensor:
        """Squared angle between the two normals relative to its variance by noise, (..., N) for log_s (..., 1)."""
        h = self.offset + log_s.exp()
        squared = self.steepness + h * h
        chord = squared - (self.along + self.n_z * h) * squared.sqrt()
        return 2 * chord.clamp_min(0) / (self.noise + self.error * squared)

    def sensitivity(self, log_s: Tensor) -> Tensor:
        """Square of d sqrt(misfit) / d ln s."""
        s = log_s.exp()
        squared = self.steepness + (self.offset + s).square()
        return self.steepness * s * s / squared / (self.noise + self.error * squared)

    def angle(self, log_s: Tensor) -> Tensor:
        """Angle between the two normals, radians."""
        h = self.offset + log_s.exp()
        return ((self.along + self.n_z * h) / (self.steepness + h * h).sqrt()).clamp(-1, 1).acos()


def measure_by_normals(frame: RelativeGeometry, reference: Reference | None, config: ScaleConfig) -> Scale:
    """The scale source "normals". Raises AlignmentError if the normals do not determine the shift."""
    assert frame.normals is not None and frame.camera is not None  # the source needs them
    rays = frame.camera.rays_on(frame.disparity.device)
    shift, stats = shift_from_cells(pool_cells(frame.disparity, frame.normals, rays, torch.isfinite(frame.disparity)))
    stats.check()
    return relative_scale(float(shift), "normals")


def shift_from_normals(
    disparity: Tensor, normals: Tensor, K: Tensor, valid: Tensor, rays: Tensor | None = None
) -> tuple[Tensor, FitStats]:
    """s in depth ~ 1 / (disparity + s), from the change of disparity along surfaces with known normals.

    On a plane with normal n, disparity + s is proportional to n . r for rays r = (x, y, 1). So its gradient over x and
    y, together with its value at x = y = 0, is parallel to n. Planes are fitted to disparity in windows of three sizes.
    The estimate minimizes the angles between the normals of these planes and the predicted ones, relative to their
    noise. Least squares in disparity would be biased by the noise of the normals. The loss is Cauchy's, at the scale of
    the median angle, because many windows contain more than one surface.

    Args:
        disparity: (..., H, W) affine-invariant, 1 = near.
        normals: (..., H, W, 3) unit, optical frame, toward the camera.
        K: (..., 3, 3) in pixels, integer pixel centers.
        valid: bool (..., H, W), false for sky. NaN in other arguments is not valid either.
        rays: (H, W, 3) with z = 1, in place of K's where a lens distorts.

    Returns:
        s (...) float64, NaN where refused, and stats. Their points are windows with a plane that does not face the
        camera; the residual is the median angle between predicted and plane normals, radians.
    """
    rays = pinhole_rays(K.to(disparity.device), *disparity.shape[-2:]) if rays is None else rays
    return shift_from_cells(pool_cells(disparity, normals, rays, valid))


def shift_from_cells(cells: Cells) -> tuple[Tensor, FitStats]:
    """As :func:`shift_from_normals`, from an image that is already pooled."""
    windows = fit_windows(cells)
    low = torch.where(windows.good, windows.disparity, math.inf).amin(-1, keepdim=True)
    high = torch.where(windows.good, windows.disparity, -math.inf).amax(-1, keepdim=True)
    varies = high - low > 1e-6 * high.abs()
    low, span = torch.where(varies, low, 0), torch.where(varies, high - low, 1)
    planes = _planes(windows, low, span)
    log_s, variance = _search(planes)
    misfit = planes.misfit(log_s)
    agrees = planes.use & (misfit < 4 * variance)
    oblique = planes.use & (planes.n_z < math.cos(MIN_OBLIQUENESS))
    points = oblique.sum(-1)
    # Information of the windows about ln s, in units of the prior's.
    information = INDEPENDENT_WINDOWS * PRIOR_SPREAD**2 * _mean(planes.sensitivity(log_s) / variance, agrees)
    refusal = torch.where(information < 1, 3, 0).squeeze(-1)
    refusal = torch.where(points < MIN_WINDOWS, 2, refusal)
    refusal = torch.where(varies.squeeze(-1), refusal, 1)
    shift = torch.where(refusal == 0, (log_s.exp() * span - low).squeeze(-1), torch.nan)
    angle = torch.where(oblique, planes.angle(log_s), torch.nan).nanmedian(-1).values
    return shift, FitStats(points, _mean(agrees.double(), oblique).squeeze(-1), angle, refusal, REASONS)


def _planes(windows: Windows, low: Tensor, span: Tensor) -> _Planes:
    """The planes for disparity stretched from [low, low + span] to [0, 1]."""
    gradient = windows.gradient / span[..., None]
    offset = (windows.disparity - low) / span - (gradient * windows.ray).sum(-1)
    inward = -windows.normal
    return _Planes(
        windows.good, gradient.square().sum(-1), offset, windows.gradient_variance / span.square(),
        (gradient * inward[..., :2]).sum(-1), inward[..., 2], windows.normal_variance + NORMAL_ERROR**2,
    )  # fmt: skip


def _search(planes: _Planes) -> tuple[Tensor, Tensor]:
    """ln s with the lowest cost, and the variance of the misfits there, (..., 1)."""
    ones = torch.ones_like(planes.offset[..., :1])
    share = planes.use / planes.use.sum(-1, keepdim=True).clamp_min(1)
    tilt = share * (1 - planes.n_z.square())

    def around(middle: Tensor | float, step: float, count: int) -> Tensor:
        steps = step * torch.arange(-(count // 2), count - count // 2, dtype=ones.dtype, device=ones.device)
        return middle + steps.reshape(-1, *[1] * ones.ndim) * ones

    low, high = math.log(MIN_SHIFT), math.log(MAX_SHIFT)
    step = (high - low) / GRID
    grid, variance = around((low + high) / 2, step, GRID), ones
    for _ in range(1 + REFINEMENTS):
        misfit = planes.misfit(grid)
        loss = ((misfit / variance).log1p() * share).sum(-1, keepdim=True)
        prior = (grid - math.log(PRIOR_SHIFT)).square() / (2 * INDEPENDENT_WINDOWS * PRIOR_SPREAD**2)
        best = (loss + prior).argmin(0, keepdim=True)
        log_s = grid.gather(0, best)[0]
        variance = _typical(misfit.gather(0, best.expand(1, *share.shape))[0], tilt)
        step *= 3 / FINE_GRID
        grid = around(log_s, step, FINE_GRID)
    return log_s, variance


def _typical(misfit: Tensor, weight: Tensor) -> Tensor:
    """Weighted median, (..., 1) of (..., N)."""
    misfit, order = misfit.sort(-1)
    below = weight.gather(-1, order).cumsum(-1)
    middle = (below < below[..., -1:] / 2).sum(-1, keepdim=True).clamp_max(misfit.shape[-1] - 1)
    return misfit.gather(-1, middle).clamp_min(1e-12)


def _mean(values: Tensor, use: Tensor) -> Tensor:
    return (values * use).sum(-1, keepdim=True) / use.sum(-1, keepdim=True).clamp_min(1)
