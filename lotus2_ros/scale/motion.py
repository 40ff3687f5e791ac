"""Metric points from the camera's motion: what odometry knows in meters and the image sees as parallax."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.scale.bundle_adjustment import AdjustedViews, MotionNoise, Views, adjust
from lotus2_ros.scale.corner_image import CornerImage
from lotus2_ros.scale.corners import Array, Corners
from lotus2_ros.scale.reference import Reference

KEYFRAMES = 6  # number of past views that are kept
MAX_GAP = 1.0  # seconds between two frames; after a longer gap corners are not followed
# The next keyframe is due when the camera has moved so far that the median point should have moved by PARALLAX pixels
# sideways, and a share of that is seen. A camera that moved by less than STILL pixels stands still.
PARALLAX, SEEN_PARALLAX, STILL = 12.0, 0.25, 1.5
FIRST_DEPTH = 3.0  # meters, of the median point as long as nothing is known

MIN_POINTS = 20
MAX_ERROR = 2.5  # pixels, of a point in the image
MAX_DEVIATION = 0.3  # of a point's inverse depth, as a fraction of the median one
# Error of disparity, as a fraction of a point's inverse depth, or of the median one if that is larger: a point that is
# more exact has no more weight.
MODEL_ERROR = 0.1

# Odometry is refused if a smaller share of the points agrees with it, or if the image corrects its direction by more
# than this fraction of its length, or its rotation by more radians. Then PROBATION frames in a row have to agree.
MIN_AGREEMENT, MAX_TURN, MAX_ROTATION = 0.75, 0.12, 0.02
PROBATION = 5
# Median motion of the corners, in pixels, above which a camera that stands still by odometry moves.
MAX_STANDING = 15.0
# Standard deviations of odometry's direction (fraction of its length) and rotation (radians): at first, and limits.
FIRST_NOISE = np.array((0.02, 0.003))
MIN_NOISE, MAX_NOISE = np.array((0.005, 0.0005)), np.array((0.1, 0.01))
# Least share of the newest frame in them; the first frames count alike. A frame is adjusted again with what it tells of
# them as long as not more than FEW are known.
LEARNING, FEW = 0.2, 4


class Motion:
    """Follows corners through the frames of one camera and triangulates them with its poses.

    The last keyframes and the newest frame are adjusted together (:mod:`lotus2_ros.scale.bundle_adjustment`). Points
    that move by themselves do not fit and are left out.
    """

    def __init__(self) -> None:
        self._camera: Camera | None = None
        self._stamp = -math.inf
        self._variance, self._learned = FIRST_NOISE**2, 0  # the noise of odometry, and how many frames told it
        self._problem, self._probation = "", 0
        self._start()

    def _start(self) -> None:
        """Forget everything but the camera."""
        self._corners = Corners()
        self._rays = np.empty((0, 2))  # of the corners in the newest frame, at z = 1
        self._inverse = np.empty(0)  # inverse depth of the corners in it; NaN: unknown
        self._middle = 1 / FIRST_DEPTH  # inverse depth of the median corner
        self._seen = np.empty((0, 0, 2))  # (keyframe, corner, 2) rays
        self._poses = np.empty((0, 4, 4))  # of the keyframes
        self._pose = np.full((4, 4), np.nan)  # of the newest frame
        self._posed = self._refused = -math.inf  # stamps: of the first frame with this pose, of the last problem
        self._moved = -math.inf  # stamp of the newest frame with a baseline
        self._moved_at = np.zeros(3)

    def add(self, image: Tensor, camera: Camera, pose: Array, stamp: float) -> Reference | None:
        """The points of the next frame, or None while the motion tells nothing about depth.

        Args:
            image: (H, W, 3) uint8 RGB on the CPU.
            pose: (4, 4) from the camera's optical frame to a fixed frame, meters.
            stamp: seconds.

        The reference's ``problem`` says why odometry is not trusted.
        """
        if camera is not self._camera or not 0 < stamp - self._stamp < MAX_GAP:
            self._start()
            self._camera = camera
            self._view = CornerImage(camera)
        problem = self._was_frozen(pose, stamp)
        self._stamp = stamp
        self._follow(self._view.gray(image), pose)
        relative = np.linalg.inv(self._pose) @ self._poses
        adjusted = self._adjust(relative)
        if not problem:
            problem = self._stands_still(relative) if adjusted is None else self._disagrees(adjusted, relative)
        reference = None
        if adjusted is not None and not problem and self._learned <= FEW:
            adjusted = self._adjust(relative)
        if problem:
            self._problem, self._probation, self._refused = problem, PROBATION, stamp
            self._forget_past()
        elif adjusted is not None:
            self._probation = max(0, self._probation - 1)
            if np.linalg.norm(self._pose[:3, 3] - self._moved_at) * self._middle * self._view.focal > STILL:
                self._moved, self._moved_at = stamp, self._pose[:3, 3]
            reference = self._reference(adjusted, camera)
            self._drop(~(adjusted.error > MAX_ERROR))
        self._remember()
        if self._probation:
            return Reference(torch.full((1, 1), torch.nan), stamp, "odometry", problem=self._problem)
        return reference

    def _follow(self, gray: Array, pose: Array) -> None:
        """Follow the corners to the new frame, from where its pose says they are."""
        move = np.linalg.inv(pose) @ self._pose
        rays = np.concatenate((self._rays, np.ones_like(self._rays[:, :1])), -1)
        inverse = np.where(np.isfinite(self._inverse), self._inverse, self._middle)
        points = rays @ move[:3, :3].T + inverse[:, None] * move[:3, 3]
        depth = np.maximum(points[:, 2:], 0.1)
        expected = self._corners.pixels + self._view.focal * (points[:, :2] / depth - self._rays)
        kept = self._corners.follow(gray, expected, self._corners.pixels)
        self._select(kept)
        self._rays = self._view.at(self._corners.pixels)
        self._inverse = (inverse / depth[:, 0])[kept]
        self._pose = pose
        self._drop(np.isfinite(self._rays[:, 0]))

    def _adjust(self, relative: Array) -> AdjustedViews | None:
        """Inverse depth of the corners; None while the camera has not moved enough. ``relative``: keyframes' poses."""
        if not len(relative):
            return None
        baseline = np.linalg.norm(relative[:, :3, 3], axis=-1).max()
        many = np.isfinite(self._seen[..., 0]).any(0).sum() >= MIN_POINTS
        if not many or baseline * self._middle * self._view.focal < PARALLAX:
            return None
        views = Views(self._rays, self._seen, relative[:, :3, :3], relative[:, :3, 3], self._view.focal)
        adjusted = adjust(views, MotionNoise(*np.sqrt(self._variance)))
        self._inverse = np.where(np.isfinite(adjusted.error), adjusted.inverse_depth, np.nan)
        self._middle = max(float(np.median(adjusted.inverse_depth[np.isfinite(adjusted.error)])), 1e-3)
        return adjusted

    def _disagrees(self, adjusted: AdjustedViews, relative: Array) -> str:
        """Why odometry is not trusted, by how the image corrects it; learns how exact it is otherwise."""
        known = np.isfinite(adjusted.error)
        agreement = (adjusted.error[known] < MAX_ERROR).mean()
        if agreement < MIN_AGREEMENT:
            return f"expected corners that move as odometry says, got {agreement:.0%} of them"
        length = np.linalg.norm(np.diff(relative[:, :3, 3], axis=0, append=np.zeros((1, 3))), axis=-1)
        direction = (adjusted.across**2).sum() / max((length**2).sum(), 1e-6) / 2
        rotation = (adjusted.turned**2).mean() / 3
        if direction > MAX_TURN**2:
            degrees = math.degrees(math.atan((2 * direction) ** 0.5))
            return f"expected the direction in which odometry moves the camera, got another by {degrees:.0f} degrees"
        if rotation > MAX_ROTATION**2:
            degrees = math.degrees((3 * rotation) ** 0.5)
            return f"expected the rotation that odometry has, got another by {degrees:.1f} degrees from view to view"
        found = np.clip((direction, rotation), MIN_NOISE**2, MAX_NOISE**2)
        self._learned += 1
        self._variance += max(LEARNING, 1 / (self._learned + 1)) * (found - self._variance)
        return ""

    def _was_frozen(self, pose: Array, stamp: float) -> str:
        """Why odometry is not trusted: it goes on from a pose at which it was refused, so it jumps."""
        if np.array_equal(pose, self._pose):
            return ""
        was_refused, seconds = self._refused > self._posed, stamp - self._posed
        self._posed = stamp
        return f"expected a pose for each image, got the same for {seconds:.1f} s, and a jump" if was_refused else ""

    def _stands_still(self, relative: Array) -> str:
        """Why odometry is not trusted: it stands still and the image moves."""
        if not len(relative) or np.linalg.norm(relative[-1, :3, 3]) * self._middle * self._view.focal > STILL:
            return ""
        moved = self._moved_since(relative[-1])
        if len(moved) < MIN_POINTS or np.median(moved) < MAX_STANDING:
            return ""
        return "expected a moving camera, as the image shows, got one that stands still by odometry"

    def _moved_since(self, keyframe: Array) -> Array:
        """How far the corners moved since the last keyframe, whose pose is given, besides its rotation; pixels."""
        seen = self._seen[-1]
        known = np.isfinite(seen[:, 0])
        turned = np.concatenate((seen[known], np.ones((known.sum(), 1))), -1) @ keyframe[:3, :3].T
        moved = self._rays[known] - turned[:, :2] / np.maximum(turned[:, 2:], 0.1)
        return np.asarray(np.abs(moved).max(-1) * self._view.focal)

    def _reference(self, adjusted: AdjustedViews, camera: Camera) -> Reference | None:
        middle = self._middle
        good = (
            (adjusted.error < MAX_ERROR)
            & (adjusted.inverse_depth > 0)
            & (adjusted.deviation < MAX_DEVIATION * middle)
        )  # fmt: skip
        if good.sum() < MIN_POINTS:
            return None
        pixels = np.rint(self._view.to_image(self._corners.pixels[good])).astype(int)
        column, row = torch.from_numpy(pixels).unbind(-1)
        depth = torch.full((camera.height, camera.width), torch.nan)
        weight = torch.zeros_like(depth)
        inverse = adjusted.inverse_depth[good]
        depth[row, column] = torch.from_numpy(1 / inverse).float()
        noise = adjusted.deviation[good] / (MODEL_ERROR * np.maximum(inverse, middle))
        weight[row, column] = torch.from_numpy(1 / (1 + noise**2)).float()
        return Reference(
            depth, self._stamp, "odometry", weight=weight, age=self._stamp - self._moved,
            deviation=adjusted.scale_deviation,
        )  # fmt: skip

    def _remember(self) -> None:
        """Make the newest frame a keyframe if the camera has moved on or corners are missing; find new corners."""
        reach = self._middle * self._view.focal
        is_due = len(self._poses) == 0
        if not is_due:
            relative = np.linalg.inv(self._pose) @ self._poses[-1]
            moved = self._moved_since(relative)
            has_moved = np.linalg.norm(relative[:3, 3]) * reach > PARALLAX
            is_due = len(moved) < 2 * MIN_POINTS or (has_moved and np.median(moved) > SEEN_PARALLAX * PARALLAX)
        if is_due:
            new = self._corners.find()
            added = self._view.at(self._corners.pixels[len(self._rays) :])
            self._rays = np.concatenate((self._rays, added))
            self._inverse = np.concatenate((self._inverse, np.full(new, np.nan)))
            self._seen = np.concatenate((self._seen, np.full((len(self._seen), new, 2), np.nan)), 1)
            self._drop(np.isfinite(self._rays[:, 0]))
            self._seen = np.concatenate((self._seen, self._rays[None]))[-KEYFRAMES:]
            self._poses = np.concatenate((self._poses, self._pose[None]))[-KEYFRAMES:]

    def _forget_past(self) -> None:
        self._seen, self._poses = self._seen[:0], self._poses[:0]
        self._inverse = np.full(len(self._rays), np.nan)
        self._middle = 1 / FIRST_DEPTH
        self._moved_at = self._pose[:3, 3]

    def _drop(self, kept: Array) -> None:
        if not kept.all():
            self._corners.keep(kept)
            self._rays = self._rays[kept]
            self._select(kept)

    def _select(self, kept: Array) -> None:
        self._inverse = self._inverse[kept]
        self._seen = self._seen[:, kept]
