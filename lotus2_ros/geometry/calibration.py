"""What a calibration says of an image: sensor_msgs/CameraInfo without the message."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lotus2_ros.geometry.camera import Camera, CameraError
from lotus2_ros.geometry.lens import PLUMB_BOB, RATIONAL, Lens


class SizeError(CameraError):
    """An image that is not of the size its calibration says."""


@dataclass(frozen=True)
class Calibration:
    """A camera at its full resolution, and the part of it that its images are of. Fields as in sensor_msgs/CameraInfo.

    K (9) is of the raw image, which the lens with D draws; P (12) is of the rectified one. Both hold at full resolution
    (REP-104); an image is the region of interest (x, y, width, height in full resolution; all 0: everything) with
    ``binning`` (x, y; 0 is 1) pixels made one. Equal calibrations make equal cameras.
    """

    width: int
    height: int
    K: tuple[float, ...]
    D: tuple[float, ...] = ()
    distortion_model: str = ""
    P: tuple[float, ...] = (0.0,) * 12
    binning: tuple[int, int] = (0, 0)
    roi: tuple[int, int, int, int] = (0, 0, 0, 0)

    def camera(self, width: int, height: int, *, rectified: bool) -> Camera:
        """The camera of an image of ``width`` x ``height``. Raises CameraError, LensError or SizeError."""
        self._check_size(width, height)
        K, lens = (self._rectified(), None) if rectified else (self.K, self._lens())
        fx, skew, cx, _, fy, cy = K[:6]
        x, y = self.roi[:2]
        (bx, by) = (max(1, b) for b in self.binning)
        # Binned pixels keep the edges that they had together, as those of a resized image do.
        values = [
            [fx / bx, skew / bx, (cx - x + 0.5) / bx - 0.5],
            [0, fy / by, (cy - y + 0.5) / by - 0.5],
            [0, 0, 1],
        ]
        return Camera(width, height, torch.tensor(values, dtype=torch.float64), lens)

    def _check_size(self, width: int, height: int) -> None:
        x, y, *part = self.roi
        if not any(self.roi):
            part = [self.width, self.height]
        (bx, by) = (max(1, b) for b in self.binning)
        expected = part[0] // bx, part[1] // by
        if expected == (width, height):
            return
        got = f"got {width}x{height}"
        if (self.width, self.height) == (width, height):
            # Some drivers send a calibration scaled to their images, and what they scaled it by as well.
            got += ", camera_info's full size: its binning or region of interest says that the image is smaller"
        raise SizeError(
            f"expected an image of {expected[0]}x{expected[1]} (camera_info of {self.width}x{self.height}, region "
            f"{part[0]}x{part[1]} at {x}, {y}, binning {bx}x{by}), {got}"
        )

    def _rectified(self) -> tuple[float, ...]:
        if any(self.P):
            return self.P[:3] + self.P[4:7]
        if any(self.D):
            raise CameraError("expected P of the rectified image, got zeros, and K is of the raw one (D is not 0)")
        return self.K

    def _lens(self) -> Lens | None:
        if self.distortion_model in ("", PLUMB_BOB, RATIONAL) and not any(self.D):
            return None  # of an equidistant lens only its polynomial would be nothing
        return Lens(self.distortion_model, self.D)


def is_rectified(topic: str) -> bool:
    """Whether images of this topic are free of distortion, by the names that image_proc gives to its results."""
    return topic.removesuffix("/compressed").rpartition("/")[2].startswith("image_rect")
