"""Bundle adjustment of a few views whose motion is nearly known: inverse depth of points, and corrected poses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

# Standard deviation of the length of a known motion: a share of the length, and this many meters more.
LENGTH_SHARE, LENGTH_METERS = 0.02, 0.001
PIXEL = 0.7  # standard deviation of a corner's place, pixels
ROBUST = 1.5  # a corner that is off by more standard deviations has a smaller weight
STEPS = 3  # of Gauss-Newton
# Standard deviation of inverse depth that is assumed beforehand, in units of the median point's: keeps points without
# parallax finite.
SPREAD = 3.0


@dataclass(frozen=True)
class Views:
    """V views of N points, and one more, the newest, that all poses are in.

    rays: (N, 2) of the points in the newest view, at z = 1.
    seen: (V, N, 2) in the other views, oldest first; NaN where a point is not seen.
    rotations, positions: (V, 3, 3) from a view to the newest one, and (V, 3) where it was, meters.
    focal: pixels per unit of the rays.
    """

    rays: Array
    seen: Array
    rotations: Array
    positions: Array
    focal: float


@dataclass(frozen=True)
class MotionNoise:
    """How exact the known motion from one view to the next is, besides its length: standard deviations."""

    direction: float  # across the motion, as a fraction of its length
    rotation: float  # radians


@dataclass(frozen=True)
class AdjustedViews:
    """The result of :func:`adjust`."""

    inverse_depth: Array  # (N,) in the newest view, 1/m; maybe negative
    deviation: Array  # (N,) its standard deviation, poses taken as known
    error: Array  # (N,) root mean square over the views, pixels; NaN without views
    # Corrections of the motions from view to view (V,): along and across them in meters, and radians.
    along: Array
    across: Array
    turned: Array
    scale_deviation: float  # relative, that all inverse depths share


def adjust(views: Views, noise: MotionNoise) -> AdjustedViews:
    """Minimize the errors in the image and the corrections of the motion (Triggs et al. 2000).

    The length of the motion is known best by odometry, its direction and rotation by the image. The points are
    eliminated by the Schur complement, so a step costs little.
    """
    rotations, positions = views.rotations.copy(), views.positions.copy()
    count = len(positions)
    prior, along = _prior(views.positions, noise)
    corrections = np.zeros((count, 6))
    inverse = _triangulate(views)
    middle = np.median(np.abs(inverse))
    scale = views.focal / PIXEL
    seen = np.nan_to_num(views.seen)
    use = np.isfinite(views.seen[..., 0]).astype(float)
    for _ in range(STEPS):
        residual, by_inverse, by_pose = _linearize(views.rays, seen, rotations, positions, inverse)
        square = (residual**2).sum(-1) * scale**2
        typical = max(1.0, float(np.median(square[use > 0]) / 1.39))  # 1.39: its median for normal errors
        weight = use * scale**2 / typical / (1 + square / typical / ROBUST**2)
        weighted = weight[..., None] * by_inverse
        own = (weighted * by_inverse).sum((0, 2)) + 1 / (SPREAD * middle) ** 2
        pull = (weighted * residual).sum((0, 2)) + (middle - inverse) / (SPREAD * middle) ** 2
        weighted_pose = weight[..., None, None] * by_pose
        shared = (weighted_pose * by_inverse[..., None]).sum(2).swapaxes(0, 1).reshape(len(inverse), -1)
        columns = weighted_pose.reshape(count, -1, 6).swapaxes(1, 2)
        blocks = columns @ by_pose.reshape(count, -1, 6)
        gradient = (columns @ residual.reshape(count, -1, 1)).ravel() - prior @ corrections.ravel()
        normal = prior.copy()
        for view in range(count):
            normal[6 * view : 6 * view + 6, 6 * view : 6 * view + 6] += blocks[view]
        eliminated = shared / own[:, None]
        step = np.linalg.solve(normal - eliminated.T @ shared, gradient - eliminated.T @ pull)
        inverse = inverse + (pull - shared @ step) / own
        step = step.reshape(count, 6)
        corrections += step
        rotations = _rotation(step[:, :3]) @ rotations
        positions = positions + step[:, 3:]
    residual, _, _ = _linearize(views.rays, seen, rotations, positions, inverse)
    square = (residual**2).sum(-1)
    with np.errstate(invalid="ignore"):
        error = views.focal * np.sqrt((use * square).sum(0) / use.sum(0))
    return AdjustedViews(inverse, own**-0.5, error, *_corrected(corrections, views.positions), along)


def _triangulate(views: Views) -> Array:
    """Inverse depth (N,) by linear least squares, with the motion as it is known."""
    back = views.rotations.swapaxes(-1, -2)
    rays = np.concatenate((views.rays, np.ones_like(views.rays[:, :1])), -1)
    turned, moved = rays @ views.rotations, (back @ views.positions[..., None])[..., 0]
    slope = moved[:, None, :2] - views.seen * moved[:, None, 2:]
    offset = turned[..., :2] - views.seen * turned[..., 2:]
    total = np.nansum(slope * slope, (0, 2))
    inverse: Array = np.nansum(slope * offset, (0, 2)) / np.maximum(total, 1e-12)
    return np.maximum(inverse, 1e-3)


def _linearize(
    rays: Array, seen: Array, rotations: Array, positions: Array, inverse: Array
) -> tuple[Array, Array, Array]:
    """Errors (V, N, 2), and how the places in the views change with inverse depth (V, N, 2) and pose (V, N, 2, 6)."""
    rays = np.concatenate((rays, np.ones_like(rays[:, :1])), -1)
    points = rays - inverse[:, None] * positions[:, None]  # (V, N, 3) times depth, from the view
    inside = points @ rotations
    depth = np.maximum(inside[..., 2:], 0.05)
    places = inside[..., :2] / depth
    axes = rotations.swapaxes(-1, -2)[:, None]
    by_point = (axes[:, :, :2] - places[..., None] * axes[:, :, 2:]) / depth[..., None]  # (V, N, 2, 3)
    by_inverse = -(by_point @ positions[:, None, :, None])[..., 0]
    x, y, z = (by_point[..., k] for k in range(3))
    px, py, pz = (points[..., None, k] for k in range(3))
    by_rotation = (y * pz - z * py, z * px - x * pz, x * py - y * px)
    by_pose = np.stack((*by_rotation, *(-inverse[:, None] * part for part in (x, y, z))), -1)
    return seen - places, by_inverse, by_pose


def _steps(positions: Array) -> tuple[Array, Array]:
    """Motion from each view to the next: its length (V,), and direction (V, 3)."""
    moves = np.diff(positions, axis=0, append=np.zeros((1, 3)))
    length = np.linalg.norm(moves, axis=-1)
    return length, moves / np.maximum(length, 1e-9)[:, None]


def _changes(positions: Array) -> Array:
    """How the motions from view to view change with the corrections of the poses: (V, 6, 6 V), turned and moved.

    Odometry measures a motion as it is seen on the way, half from each of its two views: if they turn, it turns too.
    """
    count = len(positions)
    moves = np.diff(positions, axis=0, append=np.zeros((1, 3)))
    changes = np.zeros((count, 6, count + 1, 6))
    for view, (x, y, z) in enumerate(-moves):
        changes[view, :, view], changes[view, :, view + 1] = np.eye(6), -np.eye(6)
        changes[view, 3:, view : view + 2, :3] += np.array(((0, -z, y), (z, 0, -x), (-y, x, 0)))[:, None] / 2
    return changes[:, :, :count].reshape(count, 6, 6 * count)


def _prior(positions: Array, noise: MotionNoise) -> tuple[Array, float]:
    """Precision (6 V, 6 V) of all corrections, and the relative deviation of the length of the whole motion."""
    length, direction = _steps(positions)
    along, across = (share * length + LENGTH_METERS for share in (LENGTH_SHARE, noise.direction))
    precision = np.zeros((len(positions), 6, 6))
    precision[:, :3, :3] = np.eye(3) / noise.rotation**2
    outer = direction[:, :, None] * direction[:, None]
    precision[:, 3:, 3:] = (np.eye(3) - outer) / across[:, None, None] ** 2 + outer / along[:, None, None] ** 2
    changes = _changes(positions)
    whole = np.sqrt((along**2).sum()) / max(length.sum(), 1e-9)
    return (changes.swapaxes(1, 2) @ precision @ changes).sum(0), float(whole)


def _corrected(corrections: Array, positions: Array) -> tuple[Array, Array, Array]:
    """Corrections of the motions from view to view (V,): along and across it in meters, and radians."""
    _, direction = _steps(positions)
    changes = _changes(positions) @ corrections.ravel()
    moved = changes[:, 3:]
    along = (moved * direction).sum(-1)
    across = np.linalg.norm(moved - along[:, None] * direction, axis=-1)
    return np.abs(along), across, np.linalg.norm(changes[:, :3], axis=-1)


def _rotation(vectors: Array) -> Array:
    """Rotation matrices (V, 3, 3) of rotation vectors (V, 3) (Rodrigues)."""
    angle = np.linalg.norm(vectors, axis=-1)[:, None, None]
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    cross = np.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).reshape(-1, 3, 3)
    small = np.maximum(angle, 1e-9)
    return np.eye(3) + np.sin(angle) / small * cross + (1 - np.cos(angle)) / small**2 * cross @ cross
