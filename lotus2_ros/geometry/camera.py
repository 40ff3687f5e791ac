"""The camera: pixels to rays to points, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lotus2_ros.geometry.lens import Lens


class CameraError(ValueError):
    """A calibration that cannot be used."""


@dataclass(frozen=True, eq=False)
class Camera:
    """A camera of an image of ``height`` x ``width`` pixels; a pinhole unless it has a ``lens`` that distorts.

    Convention: optical frame of REP-103 (x right, y down, z forward). ``K`` is (3, 3) in pixels, integer pixel centres:
    the centre of the top left pixel is (u, v) = (0, 0), as in sensor_msgs/CameraInfo. Depth is along z, not along the
    ray.
    """

    width: int
    height: int
    K: Tensor
    lens: Lens | None = None

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise CameraError(f"expected a camera of positive size, got {self.width} x {self.height}")
        if tuple(self.K.shape) != (3, 3):
            raise CameraError(f"expected K of shape (3, 3), got {tuple(self.K.shape)}")
        if not bool(torch.isfinite(self.K).all()):
            raise CameraError("expected finite intrinsics, got NaN or Inf in K")
        fx, fy = float(self.K[0, 0]), float(self.K[1, 1])
        if fx <= 0 or fy <= 0:
            raise CameraError(
                f"expected positive focal lengths, got fx={fx:g}, fy={fy:g} (an uncalibrated camera has K[0] = 0)"
            )

    @classmethod
    def from_intrinsics(cls, width: int, height: int, fx: float, fy: float, cx: float, cy: float) -> Camera:
        """Focal lengths and principal point in pixels, integer pixel centres."""
        return cls(width, height, torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64))

    @classmethod
    def from_fov(cls, width: int, height: int, horizontal_fov: float) -> Camera:
        """Square pixels, principal point in the middle; ``horizontal_fov`` in degrees between the outer edges."""
        if not 0 < horizontal_fov < 180:
            raise CameraError(f"expected a horizontal field of view between 0 and 180 degrees, got {horizontal_fov:g}")
        f_px = width / 2 / math.tan(math.radians(horizontal_fov) / 2)
        return cls.from_intrinsics(width, height, f_px, f_px, (width - 1) / 2, (height - 1) / 2)

    def resize(self, width: int, height: int) -> Camera:
        """The same camera seen by an image resized to ``width`` x ``height``.

        Pixel edges, not centres, keep their place: u' + .5 = (u + .5) * width' / width.
        """
        sx, sy = width / self.width, height / self.height
        K = self.K.clone()
        K[0, :2] *= sx
        K[1, 1] *= sy
        K[0, 2] = (self.K[0, 2] + 0.5) * sx - 0.5
        K[1, 2] = (self.K[1, 2] + 0.5) * sy - 0.5
        return Camera(width, height, K, self.lens)

    @cached_property
    def rays(self) -> Tensor:
        """Per pixel the ray that it sees, with z = 1: (H, W, 3) float32 on the device of ``K``; K^-1 (u, v, 1) of a
        pinhole. NaN where the lens draws nothing.
        """
        # In float64: with float32 the far corner of a large image is off by more than the 1e-5 that points are held to.
        rows, columns = torch.arange(self.height).double(), torch.arange(self.width).double()
        v, u = torch.meshgrid(rows, columns, indexing="ij")
        pixels = torch.stack((u, v, torch.ones_like(u)), dim=-1)
        rays = pixels @ torch.linalg.inv(self.K.to("cpu", torch.float64)).T
        if self.lens is not None:
            ideal = self.lens.undistort(rays[..., :2])
            # A ray is known or not, as a whole.
            rays = torch.cat((ideal, 1 + 0 * ideal[..., :1]), dim=-1)
        return rays.to(self.K.device, torch.float32)

    def unproject(self, depth: Tensor) -> Tensor:
        """Points (..., H, W, 3) in the optical frame, in the unit of ``depth`` (..., H, W); NaN where there is none."""
        if tuple(depth.shape[-2:]) != (self.height, self.width):
            raise CameraError(f"expected depth of {(self.height, self.width)}, got {tuple(depth.shape)}")
        # An infinite depth (sky) is no point; times a ray's 0 it would be NaN in one coordinate only.
        finite = torch.where(torch.isfinite(depth), depth, torch.nan)
        return self.rays.to(depth.device) * finite[..., None]

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Where points (..., 3) in the optical frame are seen: pixels (..., 2) as (u, v), and their depth (...).

        Pixels are NaN where a point is not in front of the camera or farther off its axis than the lens reaches; they
        may lie outside the image.
        """
        depth = points[..., 2]
        drawn = points[..., :2] / torch.where(depth > 0, depth, torch.nan)[..., None]
        if self.lens is not None:
            drawn = self.lens.distort(drawn)
        K = self.K.to(points)
        return drawn @ K[:2, :2].T + K[:2, 2], depth
