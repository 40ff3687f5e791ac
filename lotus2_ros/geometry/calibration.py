"""The calibration of a camera and the camera of one of its images: sensor_msgs/CameraInfo without the message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lotus2_ros.geometry.camera import Camera, CameraError
from lotus2_ros.geometry.lens import Lens, LensError

# A principal point in the outer sixth of both width and height is at a corner of the image.
CORNER = 1 / 6
FOCAL_LENGTHS = 0.05, 1000  # widths of the image: views of 169 and of 0.06 degrees
LEAST_SEEN = 0.1  # of the pixels: a fisheye of 220 degrees has rays for a third of its image
GRID = 16  # pixels along each side that are looked at


class SizeError(CameraError):
    """An image whose size is not the calibration's."""


@dataclass(frozen=True)
class Calibration:
    """A camera at its full resolution, and the part of it that its images show. Fields as in sensor_msgs/CameraInfo.

    K (9) and D are of the raw image, P (12) is of the rectified one. Both hold at full resolution (REP-104). An image
    is the region of interest (x, y, width, height in full resolution; all 0: everything) with ``binning`` (x, y; 0
    means 1) pixels merged into one. Equal calibrations make equal cameras.
    """

    width: int
    height: int
    K: tuple[float, ...]
    D: tuple[float, ...] = ()
    distortion_model: str = ""
    P: tuple[float, ...] = (0.0,) * 12
    binning: tuple[int, int] = (0, 0)
    roi: tuple[int, int, int, int] = (0, 0, 0, 0)

    @classmethod
    def of(cls, info: Any) -> Calibration:
        """The calibration in a sensor_msgs/CameraInfo, of rclpy or of rosbags."""
        roi = info.roi
        return cls(
            info.width, info.height, tuple(info.k), tuple(info.d), info.distortion_model, tuple(info.p),
            (info.binning_x, info.binning_y), (roi.x_offset, roi.y_offset, roi.width, roi.height),
        )  # fmt: skip

    def is_calibrated(self, *, rectified: bool) -> bool:
        """False for a focal length of 0, which drivers send for a camera that nobody has calibrated."""
        return (self.P if rectified and any(self.P) else self.K)[0] != 0

    def camera(self, width: int, height: int, *, rectified: bool) -> Camera:
        """The camera of an image of ``width`` x ``height``. Raises CameraError, LensError or SizeError."""
        self._check_size(width, height)
        K, lens = (self._rectified(), None) if rectified else (self.K, Lens.of(self.distortion_model, self.D))
        fx, skew, cx, _, fy, cy = K[:6]
        x, y = self.roi[:2]
        bx, by = self._bin_size
        # Binning keeps the outer edges of the merged pixels, as resizing an image does.
        values = [
            [fx / bx, skew / bx, (cx - x + 0.5) / bx - 0.5],
            [0, fy / by, (cy - y + 0.5) / by - 0.5],
            [0, 0, 1],
        ]
        return Camera(width, height, torch.tensor(values, dtype=torch.float64), lens)

    def doubt(self, *, rectified: bool) -> str:
        """Why the calibration is hardly right, with the likely mistake; empty if it is plausible."""
        K = self._rectified() if rectified else self.K
        lens_doubt = "" if rectified else self._lens_doubt()
        return self._roi_doubt() or self._principal_point_doubt(K) or self._focal_length_doubt(K) or lens_doubt

    def _roi_doubt(self) -> str:
        x, y, w, h = self.roi
        if x + w > self.width or y + h > self.height:
            return (
                f"expected a region of interest inside camera_info's {self.width}x{self.height}, got {w}x{h} at {x}, "
                f"{y}: width, height and K are those of the full sensor (REP-104)"
            )
        return ""

    def _principal_point_doubt(self, K: tuple[float, ...]) -> str:
        cx, cy = K[2], K[5]
        u, v = (cx + 0.5) / self.width, (cy + 0.5) / self.height  # 0 to 1 from edge to edge
        bx, by = self._bin_size
        binned_twice = (bx, by) != (1, 1) and not _is_central(u, v) and _is_central(u * bx, v * by)
        if 0 <= u <= 1 and 0 <= v <= 1 and not _is_corner(u, v) and not binned_twice:
            return ""
        if self.K[6] or self.K[7]:
            mistake = "K looks transposed, expected its rows one after the other"
        elif 0 < cx <= 1 and 0 < cy <= 1:
            mistake = "K looks normalized to the size of the image, expected pixels"
        elif binned_twice:
            mistake = f"K looks scaled by the binning {bx}x{by} already, expected K of the full resolution (REP-104)"
        elif u > 0 and v > 0 and (cx, cy) != (0, 0) and 1 / 1.5 < u / v < 1.5:
            mistake = f"K looks like that of an image of about {2 * cx + 1:.0f}x{2 * cy + 1:.0f}, scale it to this size"
        else:
            mistake = "calibrate the camera again"
        return (
            f"expected a principal point inside the image of {self.width}x{self.height} and not at its corner, got "
            f"cx {cx:g}, cy {cy:g}: {mistake}"
        )

    def _focal_length_doubt(self, K: tuple[float, ...]) -> str:
        fx, fy = K[0], K[4]
        low, high = (share * self.width for share in FOCAL_LENGTHS)
        if low <= fx <= high and low <= fy <= high:
            return ""
        mistake = "it looks like one in millimeters" if fx < low and fy < low else "calibrate the camera again"
        return f"expected a focal length of {low:g} to {high:g} pixels, got fx {fx:g}, fy {fy:g}: {mistake}"

    def _lens_doubt(self) -> str:
        try:
            lens = Lens.of(self.distortion_model, self.D)
        except LensError:  # whoever uses it says so
            return ""
        if lens is None:
            return ""
        fx, _, cx, _, fy, cy = self.K[:6]
        u, v = ((torch.arange(GRID).double() + 0.5) / GRID * side for side in (self.width, self.height))
        points = torch.cartesian_prod((u - cx) / fx, (v - cy) / fy)
        share = float(torch.isfinite(lens.undistort(points)).all(dim=-1).double().mean())
        if share >= LEAST_SEEN:
            return ""
        return (
            f"expected a distortion under which the camera sees the image, got a ray for {share:.0%} of its pixels by "
            f"D {[float(f'{value:.3g}') for value in self.D]}: calibrate the camera again"
        )

    def _check_size(self, width: int, height: int) -> None:
        x, y, *part = self.roi
        if not any(self.roi):
            part = [self.width, self.height]
        bx, by = self._bin_size
        expected = part[0] // bx, part[1] // by
        if expected == (width, height):
            return
        got = f"got {width}x{height}"
        if (self.width, self.height) == (width, height):
            # Some drivers scale the calibration to their images and send the binning as well.
            got += ", camera_info's full size: its binning or region of interest says that the image is smaller"
        raise SizeError(
            f"expected an image of {expected[0]}x{expected[1]} (camera_info of {self.width}x{self.height}, region "
            f"{part[0]}x{part[1]} at {x}, {y}, binning {bx}x{by}), {got}"
        )

    @property
    def _bin_size(self) -> tuple[int, int]:
        """How many pixels are merged into one, across and down."""
        return max(1, self.binning[0]), max(1, self.binning[1])

    def _rectified(self) -> tuple[float, ...]:
        if any(self.P):
            return self.P[:3] + self.P[4:7]
        if any(self.D):
            raise CameraError(
                "expected P for the rectified image, got zeros; K is for the raw image, because D is not 0"
            )
        return self.K


def _is_corner(u: float, v: float) -> bool:
    return min(u, 1 - u) < CORNER and min(v, 1 - v) < CORNER


def _is_central(u: float, v: float) -> bool:
    return max(abs(u - 0.5), abs(v - 0.5)) < CORNER


def is_rectified(topic: str, wanted: str = "auto") -> bool:
    """Whether images of this topic are undistorted: as ``wanted``, yes or no; auto: by image_proc's names of topics."""
    if wanted != "auto":
        return wanted == "yes"
    return topic.removesuffix("/compressed").rpartition("/")[2].startswith("image_rect")
