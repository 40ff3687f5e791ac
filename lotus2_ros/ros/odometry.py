"""The camera's motion by nav_msgs/Odometry or /tf, and the points that it gives."""

from __future__ import annotations

import math
import threading
from typing import Any

import torch
from std_msgs.msg import Header
from torch import Tensor

from lotus2_ros.config import ScaleConfig
from lotus2_ros.config.live import LiveConfig
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.projection import rigid_transform
from lotus2_ros.ros.messages import MessageError, stamp_seconds
from lotus2_ros.ros.references import Rejecting
from lotus2_ros.ros.transforms import BY_TF, TransformPendingError, Transforms, parse_transform
from lotus2_ros.scale.motion import Motion
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.trajectory import Trajectory

ODOMETRY = "odometry"  # the source of scale


class CameraMotion:
    """Turns odometry and images into references. The executor thread fills it, the model thread reads it."""

    def __init__(self, diagnostics: Rejecting, config: LiveConfig, transforms: Transforms) -> None:
        self._diagnostics = diagnostics
        self._config = config
        self._transforms = transforms
        self._lock = threading.Lock()
        self._robot = Trajectory()  # of `_frames`, by odometry
        self._frames = ("", "")  # frame_id and child_frame_id
        # In the model thread: the stamp of the last frame, and the poses by /tf.
        self._frame_stamp = -math.inf
        self._camera = Trajectory()
        self._motion = Motion()

    def listen(self) -> None:
        """Subscribe to /tf if poses come from there, in the executor thread."""
        scale = self._config.current.scale
        if scale.fixed_frame and scale.source in ("auto", ODOMETRY):
            self._transforms.listen()

    def odometry(self, message: Any) -> None:
        """A nav_msgs/Odometry: the pose of the robot in a fixed frame."""
        scale = self._config.current.scale
        if scale.source not in ("auto", ODOMETRY) or scale.fixed_frame:
            return
        if scale.camera_pose == BY_TF:
            self._transforms.listen()
        p, q = message.pose.pose.position, message.pose.pose.orientation
        try:
            pose = rigid_transform((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))
        except ValueError as error:
            self._diagnostics.reject("odometry_pose", f"{ODOMETRY}: {error}", frame=False)
            return
        frames, before = (message.header.frame_id, message.child_frame_id), self._frames
        with self._lock:
            if frames != before:
                self._frames, self._robot = frames, Trajectory()
            self._robot.add(stamp_seconds(message.header), pose)
        if before not in (("", ""), frames):
            was, new = (f"{child!r} in {fixed!r}" for fixed, child in (before, frames))
            text = f"{ODOMETRY}: expected poses of {was} as before, got those of {new}; are there two publishers?"
            self._diagnostics.reject("odometry_frames", text, frame=False)

    def for_frame(self, image: Tensor, header: Header, camera: Camera, config: ScaleConfig) -> Reference | None:
        """The points of a frame (H, W, 3) uint8; its ``problem`` says why there are none, None: nothing to say."""
        stamp = stamp_seconds(header)
        self._follow_clock(stamp)
        try:
            pose = self.pose(header, config)
        except MessageError as error:
            return self._refused(stamp, error.reason, str(error))
        if pose is None:
            with self._lock:
                known = (self._camera if config.fixed_frame else self._robot).span
            if known is None and config.source != ODOMETRY:
                return None
            got = "none" if known is None else f"those from {known[0]:.3f} to {known[1]:.3f} s"
            return self._refused(stamp, "odometry_missing", f"expected the camera's pose at {stamp:.3f} s, got {got}")
        reference = self._motion.add(image, camera, pose.numpy(), stamp)
        if reference is not None and reference.problem:
            return self._refused(stamp, "odometry_wrong", reference.problem)
        return reference

    def _follow_clock(self, stamp: float) -> None:
        """When time jumps back, as a bag that starts over does, forget the poses from before the jump."""
        if stamp < self._frame_stamp:
            with self._lock:
                for trajectory in (self._robot, self._camera):
                    trajectory.forget_future(stamp)
        self._frame_stamp = stamp

    def _refused(self, stamp: float, reason: str, text: str) -> Reference:
        self._diagnostics.reject(reason, f"{ODOMETRY}: {text}", frame=False)
        return Reference(torch.full((1, 1), torch.nan), stamp, ODOMETRY, problem=f"{ODOMETRY}: {text}")

    def pose(self, header: Header, config: ScaleConfig) -> Tensor | None:
        """From the camera's optical frame to a fixed frame, (4, 4); None: not known at this stamp."""
        stamp = stamp_seconds(header)
        if config.fixed_frame:
            try:
                self._camera.add(stamp, self._transforms.lookup(header, config.fixed_frame, "scale.fixed_frame"))
            except TransformPendingError:  # /tf is often later than the image
                newest = self._transforms.newest(header.frame_id, config.fixed_frame)
                if newest is None:
                    raise
                self._camera.add(*newest)
            return self._camera.at(stamp)
        with self._lock:
            robot, (_, child) = self._robot.at(stamp), self._frames
        if robot is None:
            return None
        if config.camera_pose != BY_TF:
            return robot @ parse_transform(config.camera_pose, "scale.camera_pose")
        if not child or not header.frame_id or child == header.frame_id:
            return robot
        try:
            return robot @ self._transforms.lookup(header, child, "scale.camera_pose")
        except TransformPendingError:
            newest = self._transforms.newest(header.frame_id, child)
            if newest is None:
                raise
            return robot @ newest[1]
