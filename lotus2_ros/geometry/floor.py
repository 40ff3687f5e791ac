"""The floor in a depth image: its plane, and the pixels that lie on it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Largest angle in degrees between the floor's normal and the image's upward direction: the camera's pitch and roll.
MAX_TILT = 50.0
# Largest angle in degrees between a normal and the floor's for a pixel that may be floor.
MAX_ANGLE = 30.0
# Pixels along the longer side of the image that a plane is looked for in, and planes that are tried, of each kind.
SAMPLES, PLANES = 48, 256
# The mean normal is of the normals within this many degrees of it; steps of that iteration.
MODE_ANGLE, MODE_STEPS = 25.0, 5
# A pixel is on a plane if it is nearer to it than this many meters and this share of its depth.
NEAR, NEAR_SHARE = 0.02, 0.02
# A pixel below a plane outweighs this many on it, because nothing lies below the floor.
BELOW_PENALTY = 3
# Smallest share of the image that is a floor.
MIN_SHARE = 0.02
# A bump of the floor in predicted depth grows with depth: this share of it is added to the height of what faces up.
BUMP_SHARE = 0.05
REFINEMENTS = 3
# Largest angle in degrees between a plane and the mean of the normals on it. More: depth is bent, or it is no floor.
MAX_BEND = 20.0
# Largest error of a mount, in degrees and as a share of the camera's height, that is corrected by the floor in view.
MOUNT_ANGLE, MOUNT_HEIGHT = 4.0, 0.1


@dataclass(frozen=True)
class Floor:
    """The plane m . p = 1 for points p in the camera's optical frame."""

    plane: Tensor  # (3,) m: the floor's downward normal over the camera's height above it

    def height(self, depth: Tensor, rays: Tensor) -> Tensor:
        """Height (...) above the floor of pixels (...) with rays (..., 3) with z = 1, in the unit of depth."""
        plane = self.plane.to(rays, non_blocking=True)
        return (1 - depth * (rays @ plane)) / plane.norm()

    @property
    def up(self) -> Tensor:
        return -self.plane / self.plane.norm()


def find_floor(depth: Tensor, rays: Tensor, normals: Tensor) -> Floor | None:
    """The lowest plane with many pixels whose normals point up in the image; None if there is none.

    The candidates are planes through three pixels, and planes through one with the normal that most have: depth is bent
    where normals are right, and the reverse.

    Args:
        depth: (H, W) along z, in meters.
        rays: (H, W, 3) with z = 1.
        normals: (H, W, 3) unit, optical frame, toward the camera.
    """
    # On a GPU every choice of pixels below would wait for it.
    z, r, n = (each.cpu() for each in _samples(depth, rays, normals))
    seen = torch.isfinite(z) & torch.isfinite(n).all(-1)
    z, r, n = z[seen], r[seen], n[seen]
    faces_up = -n[:, 1] > math.cos(math.radians(MAX_TILT + MAX_ANGLE))
    found = torch.nonzero(faces_up)[:, 0]
    if len(found) < MIN_SHARE * max(1, len(seen)):
        return None
    planes = _candidates(z[found], r[found], n[found])
    camera_height = 1 / planes.norm(dim=-1, keepdim=True)
    up = -planes * camera_height
    heights = torch.addmm(camera_height, up, (z[:, None] * r).T)  # (planes, N)
    near = NEAR + NEAR_SHARE * z
    agree = up @ n.T > math.cos(math.radians(MAX_ANGLE))
    on = (heights.abs() < near) & agree
    score = on.sum(1) - BELOW_PENALTY * (heights < -3 * near).sum(1)
    is_floor = (-up[:, 1] > math.cos(math.radians(MAX_TILT))) & torch.isfinite(planes).all(-1)
    best = torch.where(is_floor, score, -torch.inf).argmax()
    if not (is_floor[best] and on[best].sum() >= MIN_SHARE * len(seen)):
        return None
    floor = Floor(_refined(planes[best], z, r, agree[best])[0])
    facing = n[agree[best] & (floor.height(z, r).abs() < near)].mean(0)
    return floor if facing @ floor.up > math.cos(math.radians(MAX_BEND)) * facing.norm() else None


def corrected_floor(floor: Floor, depth: Tensor, rays: Tensor, normals: Tensor) -> Floor:
    """The plane of the pixels around a ``floor`` by a mount that may be some degrees off; that floor if there is none.

    On a GPU nothing waits for it. Arguments as of :func:`find_floor`.
    """
    z, r, n = _samples(depth, rays, normals)
    mounted = floor.plane.to(z, non_blocking=True)
    agree = n @ floor.up.to(z, non_blocking=True) > math.cos(math.radians(MAX_ANGLE))
    plane, share = _refined(mounted, z, r, agree)
    angle = F.cosine_similarity(plane, mounted, dim=0)
    height = mounted.norm() / plane.norm()  # over that of the mount
    is_near = (angle > math.cos(math.radians(MOUNT_ANGLE))) & ((height - 1).abs() < MOUNT_HEIGHT)
    return Floor(torch.where(is_near & (share > MIN_SHARE), plane, mounted))


def _samples(depth: Tensor, rays: Tensor, normals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Depth (N,), rays and normals (N, 3) of pixels that are spread evenly."""
    step = max(1, max(depth.shape) // SAMPLES)
    every = (slice(step // 2, None, step),) * 2
    return depth[every].flatten(), rays[every].flatten(0, 1), normals[every].flatten(0, 1)


def _candidates(z: Tensor, r: Tensor, n: Tensor) -> Tensor:
    """Planes m (2 * PLANES, 3) of pixels that may be floor; NaN or Inf where pixels make none."""
    drawn = torch.randint(len(z), (PLANES, 4), generator=torch.Generator().manual_seed(0))
    three, one = drawn[:, :3], drawn[:, 3]
    planes, failed = torch.linalg.solve_ex(r[three].double(), (1 / z[three]).double())
    up = F.normalize(n.sum(0), dim=0)
    for _ in range(MODE_STEPS):
        alike = n @ up > math.cos(math.radians(MODE_ANGLE))
        up = F.normalize((alike[:, None] * n).sum(0), dim=0)
    level = up / (z * (r @ up))[one, None]
    return torch.cat((planes.float().masked_fill(failed[:, None] != 0, torch.nan), level))


def _refined(plane: Tensor, z: Tensor, r: Tensor, agree: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares of inverse depth, which is linear in the ray on a plane, over the pixels on it; and their share."""
    for _ in range(REFINEMENTS):
        height = (1 - z * (r @ plane)) / plane.norm()
        on = agree & (height.abs() < 2 * (NEAR + NEAR_SHARE * z))
        weighted = torch.where(on, z, 0)[:, None] * r  # equal heights weigh alike
        plane = torch.linalg.solve_ex(weighted.T @ weighted, weighted.T @ on.to(z))[0]
    return plane, on.float().mean()


def floor_mask(depth: Tensor, rays: Tensor, normals: Tensor, height: float, floor: Floor | None = None) -> Tensor:
    """Bool (H, W), true on the floor; false everywhere if none is found. Arguments as of :func:`find_floor`.

    ``floor``: if it is known where the camera is; otherwise it is looked for.

    What faces up is floor up to ``height`` meters above or below its plane, and a share of depth more, since predicted
    floors have bumps. What faces elsewhere is floor only where it touches the plane.
    """
    floor = corrected_floor(floor, depth, rays, normals) if floor else find_floor(depth, rays, normals)
    if floor is None:
        return torch.zeros_like(depth, dtype=torch.bool)
    off = floor.height(depth, rays).abs_()
    faces_up = normals @ floor.up.to(normals, non_blocking=True) > math.cos(math.radians(MAX_ANGLE))
    return off < torch.where(faces_up, height + BUMP_SHARE * depth, NEAR + NEAR_SHARE * depth)
