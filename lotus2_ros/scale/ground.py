"""Metric scale from the camera's height above the floor, which is found by its normals."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from lotus2_ros.config import ScaleConfig
from lotus2_ros.geometry.floor import Floor
from lotus2_ros.scale.fit import FitStats, fit_scale_shift
from lotus2_ros.scale.planes import pinhole_rays, pool_cells
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.scale import RelativeGeometry, Scale, metric_scale
from lotus2_ros.scale.shift import shift_from_cells

# Largest angle in degrees between `up` and a normal of the floor.
FLOOR_ANGLE = 20.0
# Smallest tangent of the angle below the horizon. Closer to the horizon, distance changes too fast.
MIN_DROP = 0.02
# Smallest fraction of the image that must be floor.
MIN_FLOOR = 0.01
# Cells that score a plane, and cells whose pairs propose planes.
SAMPLES, SUPPORTS = 256, 24
# Largest distance of a cell from its plane, as a fraction of the floor's range of disparity.
TOLERANCE = 0.02
# A cell below a plane outweighs this many cells on it, because nothing lies below the floor.
BELOW_PENALTY = 5
# How much larger the error of the shift is than the residuals of the floor tell: a network's disparity is bent.
BENT = 2.0
# Standard deviation of the inverse depth that the shift by normals gives to the farthest pixels, relative to it.
SHIFT_ERROR = 0.5


def measure_by_camera_height(frame: RelativeGeometry, reference: Reference | None, config: ScaleConfig) -> Scale:
    """The scale source "camera_height". Raises AlignmentError if there is no floor in view."""
    assert frame.normals is not None and frame.camera is not None  # the source needs them
    scale, shift, stats = scale_from_ground(
        frame.disparity,
        frame.normals,
        frame.camera.K,
        up_from_angles(config.camera_pitch, config.camera_roll),
        config.camera_height,
        frame.camera.rays_on(frame.disparity.device),
        shift_by_normals=True,
    )
    stats.check()
    return metric_scale(float(scale), float(shift), "camera_height", stats)


def scale_from_ground(
    disparity: Tensor,
    normals: Tensor,
    K: Tensor,
    up: Tensor,
    camera_height: float | Tensor,
    rays: Tensor | None = None,
    *,
    shift_by_normals: bool = False,
) -> tuple[Tensor, Tensor, FitStats]:
    """Scale and shift in 1 / depth = scale * disparity + shift, from the camera's height above the floor.

    On a horizontal surface, 1 / depth = -(up . r) / h for a ray r with z = 1, where h is the camera's height above that
    surface. The camera is less high above tables and pavements than above the floor, so their disparity is larger at
    the same -(up . r). The floor is therefore the line through many points that has few points below it.

    Args:
        disparity: (..., H, W) affine-invariant, 1 = near, NaN where invalid.
        normals: (..., H, W, 3) unit, optical frame, toward the camera. Within 20 degrees of ``up`` they may be floor.
        K: (..., 3, 3) in pixels, integer pixel centers.
        up: (..., 3) unit vector, optical frame.
        camera_height: (...) meters.
        rays: (H, W, 3) with z = 1, in place of K's where a lens distorts.
        shift_by_normals: average the shift with that of `shift_from_normals`, by their errors. The floor tells it less
            exactly the smaller its range of disparity is.

    Returns:
        Scale and shift (...) float64 in 1/m, NaN where refused, and the stats of the fit; its points are cells of
        pixels. A fit is also refused if less than 1 % of the image may be floor.
    """
    rays = pinhole_rays(K.to(disparity.device), *disparity.shape[-2:]) if rays is None else rays
    cells = pool_cells(disparity, normals, rays, torch.isfinite(disparity))
    up = up.to(cells.normals)[..., None, None, :]
    drop = -(up[..., 0] * cells.x + up[..., 1] * cells.y + up[..., 2])
    faces_up = (F.normalize(cells.normals, dim=-1) * up).sum(-1) > math.cos(math.radians(FLOOR_ANGLE))
    weight = (cells.share * (faces_up & (drop > MIN_DROP))).flatten(-2)
    seen = weight.mean(-1)
    drop, found = drop.flatten(-2), cells.disparity.flatten(-2)
    on_floor = _on_lowest_plane(drop, found, weight)
    height = torch.as_tensor(camera_height, dtype=drop.dtype, device=drop.device)[..., None]
    scale, shift, stats = fit_scale_shift(found, drop / height, weight * on_floor)
    if shift_by_normals:
        relative_shift, _ = shift_from_cells(cells)  # NaN where refused
        far = torch.where(cells.share > 0, cells.disparity, math.inf).flatten(-2).amin(-1)
        relative = found - far[..., None], relative_shift + far
        scale, inverse_depth = average_shifts(scale, scale * far + shift, stats.residual, *relative, weight * on_floor)
        shift = inverse_depth - scale * far
    reasons = (*stats.reasons, f"expected a floor in at least {100 * MIN_FLOOR:g} % of the image")
    refusal = torch.where(seen < MIN_FLOOR, len(stats.reasons), stats.refusal)
    scale, shift = (torch.where(refusal == 0, value, torch.nan) for value in (scale, shift))
    return scale, shift, FitStats(stats.points, stats.inlier_fraction, stats.residual, refusal, reasons)


def average_shifts(
    scale: Tensor, shift: Tensor, residual: Tensor, disparity: Tensor, relative_shift: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """The line through the middle of the floor, with the mean of both shifts, where the farthest disparity is 0.

    ``residual`` is that of the floor's fit, and ``weight`` is on the floor.
    """
    total = weight.sum(-1).clamp_min(1e-9)
    middle = (weight * disparity).sum(-1) / total
    variance = (weight * (disparity - middle[..., None]).square()).sum(-1) / total
    inverse_depth = scale * middle + shift
    # The error of the line at its far end; errors of a network's neighbors are one error.
    error = BENT * residual * inverse_depth * (1 + middle.square() / variance.clamp_min(1e-12)).sqrt()
    by_normals = inverse_depth * relative_shift / (middle + relative_shift)
    trust = (error / (SHIFT_ERROR * by_normals)).square().nan_to_num(0.0)
    mean = (shift + trust * by_normals.nan_to_num(0.0)) / (1 + trust)
    return (inverse_depth - mean) / middle.clamp_min(1e-9), mean


@lru_cache(maxsize=16)  # it is asked for with every frame
def mounted_floor(config: ScaleConfig) -> Floor | None:
    """The floor by the camera's height and tilt; None if its height is not known."""
    if config.camera_height <= 0:
        return None
    return Floor(-up_from_angles(config.camera_pitch, config.camera_roll).float() / config.camera_height)


def _on_lowest_plane(drop: Tensor, disparity: Tensor, weight: Tensor) -> Tensor:
    """Mask of the points (..., N) on the lowest line disparity = slope * drop + start that has many points."""
    order = drop.argsort(-1)
    counted = weight.gather(-1, order).cumsum(-1)
    middles = (torch.arange(SAMPLES, dtype=drop.dtype, device=drop.device) + 0.5) / SAMPLES
    at = torch.searchsorted(counted, middles * counted[..., -1:]).clamp_max(drop.shape[-1] - 1)
    at = order.gather(-1, at)
    x, y = drop.gather(-1, at), disparity.gather(-1, at)
    tolerance = TOLERANCE * (y.amax(-1, keepdim=True) - y.amin(-1, keepdim=True))
    first, second = (
        torch.triu_indices(SUPPORTS, SUPPORTS, 1, device=drop.device) * (SAMPLES - 1) // (SUPPORTS - 1)
    ).unbind(0)  # fmt: skip
    slope = (y[..., second] - y[..., first]) / (x[..., second] - x[..., first]).clamp_min(1e-6)
    start = y[..., first] - slope * x[..., first]
    above = y[..., None, :] - slope[..., None] * x[..., None, :] - start[..., None]
    on = (above.abs() <= tolerance[..., None]).sum(-1)
    below = (above < -tolerance[..., None]).sum(-1)
    best = torch.where(slope > 0, on - BELOW_PENALTY * below, -BELOW_PENALTY * SAMPLES).argmax(-1, keepdim=True)
    return (disparity - slope.gather(-1, best) * drop - start.gather(-1, best)).abs() <= 2 * tolerance


def up_from_angles(pitch_deg: float, roll_deg: float) -> Tensor:
    """The unit vector that points up, in the optical frame, (3,) float64: (0, -1, 0) for a level camera.

    In degrees. A camera with a positive pitch looks down; with a positive roll it is turned clockwise about its view.
    """
    pitch, roll = math.radians(pitch_deg), math.radians(roll_deg)
    return torch.tensor(
        [-math.sin(roll) * math.cos(pitch), -math.cos(roll) * math.cos(pitch), -math.sin(pitch)], dtype=torch.float64
    )
