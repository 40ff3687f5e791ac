"""The camera: from pixels to rays and points, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lotus2_ros.geometry.lens import Lens

if TYPE_CHECKING:
    import numpy as np


class CameraError(ValueError):
    """A calibration that cannot be used."""


@dataclass(frozen=True, eq=False, init=False)
class Camera:
    """The camera of an image of ``height`` x ``width`` pixels: a pinhole, or with a ``lens`` that distorts.

    Convention: optical frame of REP-103 (x right, y down, z forward). ``K`` is (3, 3) in pixels, upper triangular, with
    integer pixel centers: the center of the top left pixel is (u, v) = (0, 0), as in sensor_msgs/CameraInfo. Depth is
    along z, not along the ray. K may also be given as an array or nested lists. Raises CameraError.
    """

    width: int
    height: int
    K: Tensor
    lens: Lens | None = None

    def __init__(
        self, width: int, height: int, K: Tensor | np.ndarray | Sequence[Sequence[float]], lens: Lens | None = None
    ) -> None:
        if not isinstance(K, Tensor):
            K = torch.as_tensor(K, dtype=torch.float64)
        for name, value in (("width", width), ("height", height), ("K", K), ("lens", lens)):
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
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
        """Focal lengths and principal point in pixels, integer pixel centers."""
        return cls(width, height, torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64))

    @classmethod
    def from_fov(cls, width: int, height: int, horizontal_fov: float) -> Camera:
        """Square pixels and a centered principal point; ``horizontal_fov`` in degrees between the outer edges."""
        if not 0 < horizontal_fov < 180:
            raise CameraError(f"expected a horizontal field of view between 0 and 180 degrees, got {horizontal_fov:g}")
        f_px = width / 2 / math.tan(math.radians(horizontal_fov) / 2)
        return cls.from_intrinsics(width, height, f_px, f_px, (width - 1) / 2, (height - 1) / 2)

    def resize(self, width: int, height: int) -> Camera:
        """The same camera for its image resized to ``width`` x ``height``.

        Resizing keeps the outer edges of the pixels, not their centers: u' + .5 = (u + .5) * width' / width.
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
        """The ray of each pixel with z = 1: (H, W, 3) float32 on the device of ``K``; K^-1 (u, v, 1) for a pinhole. NaN
        beyond the limit of the lens.
        """
        # In float64: in float32 the far corner of a large image is off by more than 1e-5, the error allowed for points.
        (fx, skew, cx), (_, fy, cy), _ = self.K.double().tolist()
        v, u = torch.arange(self.height).double()[:, None], torch.arange(self.width).double()
        y = ((v - cy) / fy).expand(-1, self.width)
        points = torch.stack(((u - cx - skew * y) / fx, y), dim=-1)
        if self.lens is not None:
            points = self.lens.undistort(points)
        # The third coordinate is NaN where the others are.
        return torch.cat((points, 1 + 0 * points[..., :1]), dim=-1).to(self.K.device, torch.float32)

    def rays_on(self, device: torch.device) -> Tensor:
        """The rays on a device. They are copied there once."""
        if device == self.rays.device:
            return self.rays
        if device not in self._copies:
            self._copies[device] = self.rays.to(device)
        return self._copies[device]

    @cached_property
    def _copies(self) -> dict[torch.device, Tensor]:
        return {}

    def unproject(self, depth: Tensor) -> Tensor:
        """Points (..., H, W, 3) in the optical frame, in the unit of ``depth`` (..., H, W); NaN without a depth."""
        if tuple(depth.shape[-2:]) != (self.height, self.width):
            raise CameraError(f"expected depth of {(self.height, self.width)}, got {tuple(depth.shape)}")
        # An infinite depth (sky) gives no point. Without this, Inf times a ray's 0 is NaN in one coordinate only.
        finite = torch.where(torch.isfinite(depth), depth, torch.nan)
        return self.rays_on(depth.device) * finite[..., None]

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (..., 2) as (u, v) of points (..., 3) in the optical frame, and their depth (...).

        Pixels are NaN for points that are not in front of the camera or beyond the limit of the lens. They may lie
        outside the image.
        """
        depth = points[..., 2]
        distorted = points[..., :2] / torch.where(depth > 0, depth, torch.nan)[..., None]
        if self.lens is not None:
            distorted = self.lens.distort(distorted)
        K = self.K.to(points)
        return distorted @ K[:2, :2].T + K[:2, 2], depth
