"""Transforms between the camera and other frames: by parameter or by /tf."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Header
from torch import Tensor

from lotus2_ros.geometry.projection import rigid_transform
from lotus2_ros.ros.messages import MessageError, stamp_seconds

REASON = "reference_transform"
BY_TF = "tf"  # a value of scale.points_transform and scale.camera_pose


class TransformPendingError(MessageError):
    """A transform that /tf does not have yet."""


class Transforms:
    """Looks up transforms on /tf, from :meth:`listen` on. Transforms by parameter need no node."""

    def __init__(self, node: Node | None = None) -> None:
        self._node = node
        self._buffer: Any = None
        self._listener: Any = None
        self._errors: type[Exception] = Exception  # of a lookup

    def listen(self) -> None:
        """Subscribe to /tf, in the executor thread; only when needed, because /tf is a busy topic."""
        if self._buffer is not None:
            return
        try:
            import tf2_ros  # part of a ROS distribution, not a Python package of its own
        except ImportError:
            return
        self._errors = tf2_ros.TransformException
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, self._node)

    def clear(self) -> None:
        """Forget what moved. tf2 takes no transform that is 10 s older than the newest one it knows."""
        if self._buffer is not None:
            self._buffer.clear()  # static transforms stay

    def close(self) -> None:
        if self._listener is not None:
            self._listener.unregister()

    def to_camera(self, points: Tensor, header: Header, camera_frame: str, points_transform: str) -> Tensor:
        """Points (N, 3) of the header's frame in the frame of the camera, by the value of scale.points_transform.

        If one side has no frame_id, both are taken to be the same. Raises TransformPendingError, or MessageError where
        waiting does not help.
        """
        parameter = "scale.points_transform"
        if points_transform != BY_TF:
            transform = parse_transform(points_transform, parameter)
        elif header.frame_id == camera_frame or not header.frame_id or not camera_frame:
            return points
        else:
            transform = self.lookup(header, camera_frame, parameter)
        return (points.double() @ transform[:3, :3].T + transform[:3, 3]).float()

    def lookup(self, header: Header, target: str, parameter: str) -> Tensor:
        """(4, 4) from the header's frame to ``target`` at its stamp; ``parameter`` names the one to set without /tf.

        Raises TransformPendingError, or MessageError where waiting does not help.
        """
        expected = f"expected a transform from {header.frame_id!r} to {target!r}"
        if self._buffer is None:
            raise MessageError(REASON, f"{expected}, but tf2_ros is not installed; set {parameter}")
        try:
            found = self._buffer.lookup_transform(target, header.frame_id, Time.from_msg(header.stamp)).transform
        except self._errors as error:
            raise TransformPendingError(REASON, f"{expected} on /tf, or in {parameter}: {error}") from None
        except (ValueError, OverflowError) as error:  # rclpy's, of a negative stamp
            raise MessageError(REASON, f"{expected}, at a stamp that ROS can express: {error}") from None
        return _of_message(found)

    def newest(self, frame: str, target: str) -> tuple[float, Tensor] | None:
        """The newest transform from ``frame`` to ``target``, after its stamp in seconds; None: there is none."""
        if self._buffer is None:
            return None
        try:
            found = self._buffer.lookup_transform(target, frame, Time())
        except self._errors:
            return None
        return stamp_seconds(found.header), _of_message(found.transform)


def parse_transform(value: str, parameter: str) -> Tensor:
    """(4, 4) of "X Y Z QX QY QZ QW", the value of the parameter with this name. Raises MessageError."""
    numbers = [float(number) for number in value.split()]
    return _rigid(numbers[:3], numbers[3:], parameter)


def _of_message(transform: Any) -> Tensor:
    t, q = transform.translation, transform.rotation
    return _rigid((t.x, t.y, t.z), (q.x, q.y, q.z, q.w), "/tf")


def _rigid(translation: Any, quaternion: Any, source: str) -> Tensor:
    try:
        return rigid_transform(translation, quaternion)
    except ValueError as error:
        raise MessageError(REASON, f"{source}: {error}") from None
