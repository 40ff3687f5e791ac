"""Geometry that is exact for any rays: the inside of a box, a room without furniture."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Box:
    """From `low` to `high` meters as a level camera in it has them (x right, y down, z forward).

    The camera is turned from there, radians: yaw to the right, pitch down, roll clockwise about its view.
    """

    low: tuple[float, float, float] = (-2.0, -1.5, -3.0)
    high: tuple[float, float, float] = (1.5, 1.2, 4.0)
    yaw: float = 0.6
    pitch: float = 0.2
    roll: float = 0.1

    @property
    def to_level(self) -> Tensor:
        """(3, 3), from the camera's optical frame to the level one."""
        angles = torch.tensor([self.yaw, self.pitch, self.roll], dtype=torch.float64)
        (cy, cp, cr), (sy, sp, sr) = angles.cos().tolist(), angles.sin().tolist()
        about_y = torch.tensor([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]], dtype=torch.float64)
        about_x = torch.tensor([[1, 0, 0], [0, cp, sp], [0, -sp, cp]], dtype=torch.float64)
        about_z = torch.tensor([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]], dtype=torch.float64)
        return about_y @ about_x @ about_z

    @property
    def up(self) -> Tensor:
        return -self.to_level[1]

    def render(self, rays: Tensor) -> tuple[Tensor, Tensor]:
        """Depth (H, W) and normals (H, W, 3) along rays (H, W, 3) with z = 1."""
        directions = rays.double() @ self.to_level.T
        bounds = torch.where(directions > 0, torch.tensor(self.high).double(), torch.tensor(self.low).double())
        depth, face = torch.where(directions == 0, torch.inf, bounds / directions).min(-1)
        inward = -directions.gather(-1, face[..., None]).sign() * F.one_hot(face, 3)
        return depth.float(), (inward @ self.to_level).float()

    def disparity(self, rays: Tensor) -> tuple[Tensor, Tensor, float]:
        """Disparity (H, W) in [0, 1], normals, and s in depth ~ 1 / (disparity + s)."""
        depth, normals = self.render(rays)
        near, far = 1 / depth.min(), 1 / depth.max()
        return (1 / depth - far) / (near - far), normals, float(far / (near - far))


@pytest.fixture(scope="session")
def box() -> type[Box]:
    return Box
