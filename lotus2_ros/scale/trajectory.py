"""Poses over time."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque

import torch
from torch import Tensor

from lotus2_ros.config.parameters import STAMP_ROUNDING

KEPT = 2000  # poses; two seconds of the fastest odometry, of which a recording is read half a second ahead
GAP = 0.5 + STAMP_ROUNDING  # seconds between two poses that are interpolated
AHEAD = 0.1 + STAMP_ROUNDING  # seconds after the newest pose that are extrapolated
LEAST = 0.005  # seconds between two poses from which a velocity is taken


class Trajectory:
    """The last poses (4, 4) float64 of a moving frame in a fixed one, with their stamps in seconds."""

    def __init__(self) -> None:
        self._poses: deque[tuple[float, Tensor]] = deque(maxlen=KEPT)

    @property
    def span(self) -> tuple[float, float] | None:
        """The stamps of the oldest and the newest pose; None without poses."""
        return (self._poses[0][0], self._poses[-1][0]) if self._poses else None

    def add(self, stamp: float, pose: Tensor) -> None:
        """Add the newest pose. A stamp before the last one starts a new trajectory, an equal one is ignored."""
        if self._poses and stamp < self._poses[-1][0]:
            self._poses.clear()
        if not self._poses or stamp > self._poses[-1][0]:
            self._poses.append((stamp, pose))

    def forget_future(self, stamp: float) -> None:
        """Start anew if all poses are later than ``stamp``."""
        if self._poses and self._poses[0][0] > stamp:
            self._poses.clear()

    def at(self, stamp: float) -> Tensor | None:
        """The pose at ``stamp``: between two poses, or at most 0.1 s after the newest; None: not known."""
        poses = list(self._poses)
        after = bisect_left(poses, stamp, key=lambda pose: pose[0])
        if after < len(poses) and poses[after][0] == stamp:
            return poses[after][1]
        if after == 0 or not poses:
            return None
        newest, pose = poses[after - 1]
        if after < len(poses):
            next_stamp, next_pose = poses[after]
            is_known = next_stamp - newest <= GAP
            return interpolate(pose, next_pose, (stamp - newest) / (next_stamp - newest)) if is_known else None
        if stamp - newest > AHEAD:
            return None
        before = next((past for past in reversed(poses) if LEAST <= newest - past[0] <= GAP), None)
        if before is None:
            return None
        return interpolate(before[1], pose, (stamp - before[0]) / (newest - before[0]))


def interpolate(first: Tensor, second: Tensor, share: float) -> Tensor:
    """The pose (4, 4) at ``share`` of the motion from the first to the second: 0 and 1 are these, 2 goes on as far."""
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, 3] = first[:3, 3] + share * (second[:3, 3] - first[:3, 3])
    turn = first[:3, :3].T @ second[:3, :3]
    angle = torch.acos(((turn.trace() - 1) / 2).clamp(-1, 1))
    axis = torch.stack((turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]))
    vector = share * angle * axis / axis.norm().clamp_min(1e-12)
    x, y, z = vector.tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    pose[:3, :3] = first[:3, :3] @ torch.linalg.matrix_exp(cross)
    return pose
