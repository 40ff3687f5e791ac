"""Metres from the ground: the camera's height over a floor that its normals find."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lotus2_ros.scale.fit import fit_scale_shift
from lotus2_ros.scale.planes import pinhole_rays, pool_cells
from lotus2_ros.scale.stats import FitStats

# Degrees between `up` and the normal of what may be floor.
FLOOR_ANGLE = 20.0
# Of the tangent of the angle below the horizon; nearer to it distance changes too fast.
LEAST_DROP = 0.02
# Of the image, to be floor.
LEAST_FLOOR = 0.01
# Cells of pixels that planes are judged by, and of those the ones through whose pairs planes are laid.
SAMPLES, SUPPORTS = 256, 24
# Share of the floor's range of disparity that its cells may lie off its plane.
TOLERANCE = 0.02
# A cell below a plane counts against it as so many in it count for it: nothing lies below the floor.
BELOW = 5


def scale_from_ground(
    disparity: Tensor, normals: Tensor, K: Tensor, up: Tensor, camera_height: float | Tensor, rays: Tensor | None = None
) -> tuple[Tensor, Tensor, FitStats]:
    """Metric scale and shift in 1 / depth = scale * disparity + shift, from the camera's height above the floor.

    ``disparity`` (..., H, W) affine-invariant, 1 = near, NaN where invalid; ``normals`` (..., H, W, 3) unit, optical
    frame, toward the camera; ``K`` (..., 3, 3) pixels, integer centres; ``up`` (..., 3) unit, optical frame;
    ``camera_height`` (...) metres. ``rays`` (H, W, 3), z = 1, stand for K's where a lens distorts.

    Where a normal is within 20 degrees of ``up`` and the ray r goes down, 1 / depth = -(up . r) / height of the camera
    above what is seen. Tables and pavements are seen from less high: their disparity is above the floor's line over
    -(up . r), so the floor is the line of many points with few below.

    Returns scale, shift (...) float64 and the stats of the fit to the floor; its points are cells of pixels. Refused
    too where less than 1 % of the image may be floor. Scale and shift are NaN then.
    """
    rays = pinhole_rays(K.to(disparity.device), *disparity.shape[-2:]) if rays is None else rays
    cells = pool_cells(disparity, normals, rays, torch.isfinite(disparity))
    up = up.to(cells.normals)[..., None, None, :]
    drop = -(up[..., 0] * cells.x + up[..., 1] * cells.y + up[..., 2])
    faces_up = (F.normalize(cells.normals, dim=-1) * up).sum(-1) > math.cos(math.radians(FLOOR_ANGLE))
    weight = (cells.share * (faces_up & (drop > LEAST_DROP))).flatten(-2)
    seen = weight.mean(-1)
    drop, found = drop.flatten(-2), cells.disparity.flatten(-2)
    on_floor = _on_lowest_plane(drop, found, weight)
    height = torch.as_tensor(camera_height, dtype=drop.dtype, device=drop.device)[..., None]
    scale, shift, stats = fit_scale_shift(found, drop / height, weight * on_floor)
    reasons = (*stats.reasons, f"expected a floor in at least {100 * LEAST_FLOOR:g} % of the image")
    refusal = torch.where(seen < LEAST_FLOOR, len(stats.reasons), stats.refusal)
    scale, shift = (torch.where(refusal == 0, value, torch.nan) for value in (scale, shift))
    return scale, shift, FitStats(stats.points, stats.inlier_fraction, stats.residual, refusal, reasons)


def _on_lowest_plane(drop: Tensor, disparity: Tensor, weight: Tensor) -> Tensor:
    """Which points (..., N) lie on the lowest of the lines disparity = slope * drop + start that have many of them."""
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
    best = torch.where(slope > 0, on - BELOW * below, -BELOW * SAMPLES).argmax(-1, keepdim=True)
    return (disparity - slope.gather(-1, best) * drop - start.gather(-1, best)).abs() <= 2 * tolerance


def up_from_angles(pitch_deg: float, roll_deg: float) -> Tensor:
    """The unit vector up in the optical frame, (3,) float64: (0, -1, 0) of a level camera.

    Degrees; a camera with positive pitch looks down, one with positive roll is turned clockwise about its view.
    """
    pitch, roll = math.radians(pitch_deg), math.radians(roll_deg)
    return torch.tensor(
        [-math.sin(roll) * math.cos(pitch), -math.cos(roll) * math.cos(pitch), -math.sin(pitch)], dtype=torch.float64
    )
