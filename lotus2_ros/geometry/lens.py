"""Lens distortion: where a ray (x, y, 1) meets an ideal image plane, and where a real lens draws it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

# The names and counts of coefficients of sensor_msgs/CameraInfo, in OpenCV's order. A rational polynomial may go on
# with a thin prism (s1 s2 s3 s4).
PLUMB_BOB, RATIONAL, EQUIDISTANT = "plumb_bob", "rational_polynomial", "equidistant"
COUNTS = {PLUMB_BOB: (4, 5), RATIONAL: (8, 12), EQUIDISTANT: (4,)}

# So far off the axis a lens is followed at most: no ray of z = 1 reaches 90 degrees.
LIMIT = math.radians(89)
ITERATIONS = 20
TOLERANCE = 1e-10  # in units of the focal length


class LensError(ValueError):
    """A distortion model that is not known, or not with these coefficients."""


@dataclass(frozen=True)
class Lens:
    """A distortion model of sensor_msgs/CameraInfo with its coefficients D.

    plumb_bob (k1 k2 p1 p2 [k3]) and rational_polynomial (k1 k2 p1 p2 k3 k4 k5 k6 [s1 s2 s3 s4]) are those of OpenCV's
    calib3d (Brown 1971), equidistant (k1 k2 k3 k4) is that of its fisheye module (Kannala and Brandt 2006). Points are
    in units of the focal length, x right, y down. Raises LensError.
    """

    model: str
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.model not in COUNTS:
            raise LensError(f"expected a distortion model of {', '.join(COUNTS)}, got {self.model!r}")
        if len(self.coefficients) not in COUNTS[self.model]:
            counts = " or ".join(str(count) for count in COUNTS[self.model])
            raise LensError(f"expected {counts} coefficients of {self.model}, got {len(self.coefficients)}")
        if not all(math.isfinite(coefficient) for coefficient in self.coefficients):
            raise LensError(f"expected finite distortion coefficients, got {list(self.coefficients)}")

    def distort(self, ideal: Tensor) -> Tensor:
        """(..., 2) on the ideal image plane -> (..., 2) as drawn; NaN where :attr:`reach` ends."""
        radius = torch.linalg.vector_norm(ideal, dim=-1, keepdim=True)
        if self.model == EQUIDISTANT:
            theta = torch.atan(radius)
            drawn = ideal * torch.where(radius > 0, self._angle(theta)[0] / radius, 1)
            return torch.where(theta < self.reach, drawn, torch.nan)
        return torch.where(radius < self.reach, self._brown(ideal)[0], torch.nan)

    def undistort(self, drawn: Tensor) -> Tensor:
        """The inverse of :meth:`distort` by Newton's method, in float64; NaN where the lens draws nothing."""
        return self._undistort_fisheye(drawn.double()) if self.model == EQUIDISTANT else self._undistort(drawn.double())

    @cached_property
    def reach(self) -> float:
        """How far off the axis the model is one to one: beyond it fuses back, or 89 degrees are reached. The angle in
        radians of an equidistant lens, else the radius.

        Found along 32 directions: tangential and prism terms shift the fuse a little.
        """
        theta = torch.linspace(0, LIMIT, 2001, dtype=torch.float64)
        if self.model == EQUIDISTANT:
            grows = self._angle(theta)[1] > 0
            return float(theta[int(grows.long().cumprod(0).sum()) - 1])
        around = torch.arange(32, dtype=torch.float64) * (math.pi / 16)
        direction = torch.stack((around.cos(), around.sin()), dim=-1)
        radius = theta.tan()
        _, xx, xy, yx, yy = self._brown(radius[:, None, None] * direction)
        grows = (xx * yy - xy * yx > 0).all(dim=-1)
        return float(radius[int(grows.long().cumprod(0).sum()) - 1])

    def _undistort(self, drawn: Tensor) -> Tensor:
        goal = drawn.reshape(-1, 2)
        ideal = goal.clone()
        left = torch.arange(len(goal), device=goal.device)  # what has not converged yet: few after some steps
        for _ in range(ITERATIONS):
            mapped, xx, xy, yx, yy = self._brown(ideal[left])
            ex, ey = (mapped - goal[left]).unbind(-1)
            step = torch.stack((yy * ex - xy * ey, xx * ey - yx * ex), dim=-1) / (xx * yy - xy * yx)[:, None]
            moved = ideal[left] - step
            # Beyond the fuse there may be other roots, which no ray belongs to.
            radius = torch.linalg.vector_norm(moved, dim=-1, keepdim=True)
            ideal[left] = moved * (self.reach / radius).clamp(max=1)
            left = left[(step.abs() > TOLERANCE).any(dim=-1)]
            if not len(left):
                break
        found = (self.distort(ideal) - goal).abs().amax(dim=-1, keepdim=True) <= TOLERANCE
        return torch.where(found, ideal, torch.nan).reshape(drawn.shape)

    def _undistort_fisheye(self, drawn: Tensor) -> Tensor:
        drawn_angle = torch.linalg.vector_norm(drawn, dim=-1, keepdim=True)
        theta = drawn_angle.clamp(max=self.reach)
        for _ in range(ITERATIONS):
            mapped, slope = self._angle(theta)
            before, theta = theta, (theta - (mapped - drawn_angle) / slope).clamp(0, self.reach)
            if not bool(((theta - before).abs() > TOLERANCE).any()):
                break
        found = ((self._angle(theta)[0] - drawn_angle).abs() <= TOLERANCE) & (theta < self.reach)
        return torch.where(found, drawn * torch.where(theta > 0, theta.tan() / drawn_angle, 1), torch.nan)

    def _angle(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The drawn angle theta (1 + k1 theta^2 + ... + k4 theta^8) and its derivative."""
        k1, k2, k3, k4 = self.coefficients
        t = theta.square()
        drawn = theta * (1 + t * (k1 + t * (k2 + t * (k3 + t * k4))))
        return drawn, 1 + t * (3 * k1 + t * (5 * k2 + t * (7 * k3 + t * 9 * k4)))

    def _brown(self, ideal: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The drawn (..., 2) and the Jacobian's dx'/dx, dx'/dy, dy'/dx, dy'/dy, each (...)."""
        k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = (*self.coefficients, *[0.0] * 8)[:12]
        x, y = ideal.unbind(-1)
        r = x.square() + y.square()
        above, below = 1 + r * (k1 + r * (k2 + r * k3)), 1 + r * (k4 + r * (k5 + r * k6))
        radial = above / below
        # Of the radial factor by r; a pole is a fuse too, and beyond it nothing is smooth.
        slope = (k1 + r * (2 * k2 + r * 3 * k3) - radial * (k4 + r * (2 * k5 + r * 3 * k6))) / below
        slope = torch.where(below > 0, slope, torch.nan)
        drawn_x = x * radial + 2 * p1 * x * y + p2 * (r + 2 * x.square()) + r * (s1 + r * s2)
        drawn_y = y * radial + p1 * (r + 2 * y.square()) + 2 * p2 * x * y + r * (s3 + r * s4)
        prism_x, prism_y = 2 * (s1 + 2 * s2 * r), 2 * (s3 + 2 * s4 * r)
        mixed = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
        xx = radial + 2 * x.square() * slope + 2 * p1 * y + 6 * p2 * x + prism_x * x
        yy = radial + 2 * y.square() * slope + 6 * p1 * y + 2 * p2 * x + prism_y * y
        return torch.stack((drawn_x, drawn_y), dim=-1), xx, mixed + prism_x * y, mixed + prism_y * x, yy
