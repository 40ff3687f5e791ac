"""The transforms of a recording: /tf and /tf_static, looked up as tf2 does."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lotus2_ros.bags.frames import stamp_ns
from lotus2_ros.geometry.projection import rigid_transform
from lotus2_ros.scale.trajectory import interpolate

TF_TOPIC, TF_STATIC_TOPIC = "/tf", "/tf_static"
KEPT_NS = 10 * 10**9  # of moving frames, as a tf2 buffer keeps them by default
LONGEST_CHAIN = 100  # frames up to the root; more is a circle


class TransformError(ValueError):
    """A transform that the recording does not have, or not at this time. Says why in one line."""


@dataclass(order=True)
class _Pose:
    """Of a frame in its parent's, at a time."""

    stamp_ns: int
    translation: tuple[float, ...] = field(compare=False)
    quaternion: tuple[float, ...] = field(compare=False)  # x, y, z, w

    def matrix(self) -> Tensor:
        """(4, 4). Raises TransformError."""
        try:
            return rigid_transform(self.translation, self.quaternion)
        except ValueError as error:
            raise TransformError(f"/tf: {error}") from None


@dataclass
class _Frame:
    parent: str
    is_static: bool
    poses: list[_Pose] = field(default_factory=list)


class TransformBuffer:
    """Poses of frames in their parents', of the last ten seconds; static ones hold forever.

    Between two poses the translation is interpolated linearly, and the rotation evenly. Nothing is extrapolated.
    """

    def __init__(self) -> None:
        self._frames: dict[str, _Frame] = {}

    def add(self, message: Any, *, is_static: bool) -> None:
        """The transforms of a tf2_msgs/TFMessage."""
        for item in message.transforms:
            parent, child = item.header.frame_id.lstrip("/"), item.child_frame_id.lstrip("/")
            t, q = item.transform.translation, item.transform.rotation
            stamp = stamp_ns(item)
            pose = _Pose(stamp, (t.x, t.y, t.z), (q.x, q.y, q.z, q.w))
            known = self._frames.get(child)
            if known is None or known.parent != parent or is_static:
                known = self._frames[child] = _Frame(parent, is_static)
            if known.poses and known.poses[-1].stamp_ns - stamp > KEPT_NS:  # the clock was set back
                known.poses.clear()
            insort(known.poses, pose)
            while known.poses[-1].stamp_ns - known.poses[0].stamp_ns > KEPT_NS:
                known.poses.pop(0)

    def lookup(self, target: str, source: str, stamp_ns: int) -> Tensor:
        """(4, 4) float64 that takes points of the frame ``source`` to ``target``. Raises TransformError."""
        target, source = target.lstrip("/"), source.lstrip("/")
        up, down = list(self._ancestors(source)), list(self._ancestors(target))
        common = next((frame for frame in up if frame in down), None)
        if common is None:
            missing = [name for name, chain in ((source, up), (target, down)) if len(chain) == 1]
            why = f"nothing is known of {missing[0]!r}" if missing else f"{up[-1]!r} and {down[-1]!r} are not connected"
            raise TransformError(f"expected a transform from {source!r} to {target!r}, but {why}")
        to_common = self._chain(up[: up.index(common)], stamp_ns)
        return torch.linalg.inv(self._chain(down[: down.index(common)], stamp_ns)) @ to_common

    def _ancestors(self, frame: str) -> Iterator[str]:
        """The frame, its parent, and so on up to the root."""
        for _ in range(LONGEST_CHAIN):
            yield frame
            if frame not in self._frames:
                return
            frame = self._frames[frame].parent
        raise TransformError(f"expected a tree of frames, got a circle at {frame!r}")

    def _chain(self, frames: list[str], stamp_ns: int) -> Tensor:
        """(4, 4) from the first of these frames to the parent of the last."""
        matrix = torch.eye(4, dtype=torch.float64)
        for name in frames:
            matrix = self._pose(name, stamp_ns) @ matrix
        return matrix

    def _pose(self, name: str, stamp_ns: int) -> Tensor:
        frame = self._frames[name]
        poses = frame.poses
        if frame.is_static:
            return poses[-1].matrix()
        after = bisect_left(poses, stamp_ns, key=lambda pose: pose.stamp_ns)
        if after < len(poses) and poses[after].stamp_ns == stamp_ns:
            return poses[after].matrix()
        if not 0 < after < len(poses):
            known = f"poses from {poses[0].stamp_ns * 1e-9:.3f} to {poses[-1].stamp_ns * 1e-9:.3f} s"
            raise TransformError(
                f"expected a pose of {name!r} in {frame.parent!r} at {stamp_ns * 1e-9:.3f} s, got {known}"
            )
        old, new = poses[after - 1], poses[after]
        return interpolate(old.matrix(), new.matrix(), (stamp_ns - old.stamp_ns) / (new.stamp_ns - old.stamp_ns))
