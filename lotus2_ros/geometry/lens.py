"""Lens distortion: from undistorted to distorted image points, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

# The models of sensor_msgs/CameraInfo and how many coefficients each takes, in OpenCV's order. The last four of a
# rational polynomial are a thin prism (s1 s2 s3 s4).
PLUMB_BOB, RATIONAL, EQUIDISTANT = "plumb_bob", "rational_polynomial", "equidistant"
COUNTS = {PLUMB_BOB: (4, 5), RATIONAL: (8, 12), EQUIDISTANT: (4,)}
NO_LENS = ("", "none", "pinhole")  # what drivers call no distortion

# Rays with z = 1 cannot reach 90 degrees, so a lens is followed up to this angle only.
LIMIT = math.radians(89)
ITERATIONS = 20
TOLERANCE = 1e-10  # in units of the focal length


class LensError(ValueError):
    """A distortion model that is unknown, or that does not have these coefficients."""


@dataclass(frozen=True)
class Lens:
    """A distortion model of sensor_msgs/CameraInfo with its coefficients D.

    plumb_bob (k1 k2 p1 p2 [k3]) and rational_polynomial (k1 k2 p1 p2 k3 k4 k5 k6 [s1 s2 s3 s4]) are those of OpenCV's
    calib3d (Brown 1971); equidistant (k1 k2 k3 k4) is that of its fisheye module (Kannala and Brandt 2006). Points are
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

    @staticmethod
    def of(model: str, coefficients: Sequence[float]) -> Lens | None:
        """The lens of CameraInfo's ``distortion_model`` and ``d``; None for a pinhole.

        Drivers pad D with zeros: those beyond the model's own coefficients are ignored. Raises LensError, which names
        the model that the coefficients fit.
        """
        if (model in (PLUMB_BOB, RATIONAL) or model.lower() in NO_LENS) and not any(coefficients):
            return None  # without coefficients an equidistant lens is still a fisheye
        counts = [c for c in COUNTS.get(model, ()) if c <= len(coefficients) and not any(coefficients[c:])]
        try:
            return Lens(model, tuple(coefficients[: counts[-1]] if counts else coefficients))
        except LensError as error:
            raise LensError(f"{error}{_advice(model, coefficients)}") from None

    def distort(self, undistorted: Tensor) -> Tensor:
        """(..., 2) undistorted -> (..., 2) distorted; NaN beyond :attr:`limit`."""
        radius = torch.linalg.vector_norm(undistorted, dim=-1, keepdim=True)
        if self.model == EQUIDISTANT:
            theta = torch.atan(radius)
            distorted = undistorted * torch.where(radius > 0, self._angle(theta)[0] / radius, 1)
            return torch.where(theta < self.limit, distorted, torch.nan)
        return torch.where(radius < self.limit, self._brown(undistorted)[0], torch.nan)

    def undistort(self, distorted: Tensor) -> Tensor:
        """The inverse of :meth:`distort` by Newton's method, in float64; NaN where no ray is seen."""
        undistort = self._undistort_fisheye if self.model == EQUIDISTANT else self._undistort
        return undistort(distorted.double())

    @cached_property
    def limit(self) -> float:
        """Where the model stops being one to one, at most 89 degrees off the axis: the angle in radians of an
        equidistant lens, else the radius.

        Searched along 32 directions, because tangential and prism terms break the symmetry a little.
        """
        theta = torch.linspace(0, LIMIT, 2001, dtype=torch.float64)
        if self.model == EQUIDISTANT:
            grows = self._angle(theta)[1] > 0
            return float(theta[max(0, int(grows.long().cumprod(0).sum()) - 1)])
        around = torch.arange(32, dtype=torch.float64) * (math.pi / 16)
        direction = torch.stack((around.cos(), around.sin()), dim=-1)
        radius = theta.tan()
        _, xx, xy, yx, yy = self._brown(radius[:, None, None] * direction)
        grows = (xx * yy - xy * yx > 0).all(dim=-1)
        return float(radius[max(0, int(grows.long().cumprod(0).sum()) - 1)])

    def _undistort(self, distorted: Tensor) -> Tensor:
        target = distorted.reshape(-1, 2)
        found = target.clone()
        active = torch.arange(len(target), device=target.device)  # not converged yet: few after some steps
        for _ in range(ITERATIONS):
            mapped, xx, xy, yx, yy = self._brown(found[active])
            ex, ey = (mapped - target[active]).unbind(-1)
            step = torch.stack((yy * ex - xy * ey, xx * ey - yx * ex), dim=-1) / (xx * yy - xy * yx)[:, None]
            moved = found[active] - step
            # Beyond the limit there may be other roots, which belong to no ray.
            radius = torch.linalg.vector_norm(moved, dim=-1, keepdim=True)
            found[active] = moved * (self.limit / radius).clamp(max=1)
            active = active[(step.abs() > TOLERANCE).any(dim=-1)]
            if not len(active):
                break
        is_root = (self.distort(found) - target).abs().amax(dim=-1, keepdim=True) <= TOLERANCE
        return torch.where(is_root, found, torch.nan).reshape(distorted.shape)

    def _undistort_fisheye(self, distorted: Tensor) -> Tensor:
        angle = torch.linalg.vector_norm(distorted, dim=-1, keepdim=True)
        theta = angle.clamp(max=self.limit)
        for _ in range(ITERATIONS):
            mapped, slope = self._angle(theta)
            before, theta = theta, (theta - (mapped - angle) / slope).clamp(0, self.limit)
            if not bool(((theta - before).abs() > TOLERANCE).any()):
                break
        is_root = ((self._angle(theta)[0] - angle).abs() <= TOLERANCE) & (theta < self.limit)
        return torch.where(is_root, distorted * torch.where(theta > 0, theta.tan() / angle, 1), torch.nan)

    def _angle(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The distorted angle theta (1 + k1 theta^2 + ... + k4 theta^8) and its derivative."""
        k1, k2, k3, k4 = self.coefficients
        t = theta.square()
        distorted = theta * (1 + t * (k1 + t * (k2 + t * (k3 + t * k4))))
        return distorted, 1 + t * (3 * k1 + t * (5 * k2 + t * (7 * k3 + t * 9 * k4)))

    def _brown(self, undistorted: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The distorted (..., 2) and the Jacobian's dx'/dx, dx'/dy, dy'/dx, dy'/dy, each (...)."""
        k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = (*self.coefficients, *[0.0] * 8)[:12]
        x, y = undistorted.unbind(-1)
        r = x.square() + y.square()
        above, below = 1 + r * (k1 + r * (k2 + r * k3)), 1 + r * (k4 + r * (k5 + r * k6))
        radial = above / below
        # Derivative of the radial factor by r. Beyond a pole nothing is smooth.
        slope = (k1 + r * (2 * k2 + r * 3 * k3) - radial * (k4 + r * (2 * k5 + r * 3 * k6))) / below
        slope = torch.where(below > 0, slope, torch.nan)
        distorted_x = x * radial + 2 * p1 * x * y + p2 * (r + 2 * x.square()) + r * (s1 + r * s2)
        distorted_y = y * radial + p1 * (r + 2 * y.square()) + 2 * p2 * x * y + r * (s3 + r * s4)
        prism_x, prism_y = 2 * (s1 + 2 * s2 * r), 2 * (s3 + 2 * s4 * r)
        mixed = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
        xx = radial + 2 * x.square() * slope + 2 * p1 * y + 6 * p2 * x + prism_x * x
        yy = radial + 2 * y.square() * slope + 6 * p1 * y + 2 * p2 * x + prism_y * y
        return torch.stack((distorted_x, distorted_y), dim=-1), xx, mixed + prism_x * y, mixed + prism_y * x, yy


def _advice(model: str, coefficients: Sequence[float]) -> str:
    """Which other model the coefficients fit, zeros at the end aside."""
    if not all(map(math.isfinite, coefficients)):
        return ""
    used = max((number for number, value in enumerate(coefficients, start=1) if value), default=0)
    fits = [name for name, counts in COUNTS.items() if used <= counts[-1] and len(coefficients) >= counts[0]]
    fits = [name for name in fits if name != model and (name != RATIONAL or used > COUNTS[PLUMB_BOB][-1])]
    if fits:
        return f" ({used} without the zeros at the end, which fits {' or '.join(fits)}: correct distortion_model)"
    return " (those of OpenCV's tilted sensor are not supported)" if used in (13, 14) else ""
