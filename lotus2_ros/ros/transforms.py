"""Transforms from the frame of a reference's points to the optical frame of the camera: by parameter or by /tf."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Header
from torch import Tensor

from lotus2_ros.geometry.projection import rigid_transform
from lotus2_ros.ros.messages import MessageError

REASON = "reference_transform"
BY_TF = "tf"  # a value of scale.points_transform


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

    def close(self) -> None:
        if self._listener is not None:
            self._listener.unregister()

    def to_camera(self, points: Tensor, header: Header, camera_frame: str, parameter: str) -> Tensor:
        """Points (N, 3) of the header's frame in the frame of the camera; ``parameter`` is scale.points_transform.

        If one side has no frame_id, both are taken to be the same. Raises TransformPendingError, or MessageError where
        waiting does not help.
        """
        same = header.frame_id == camera_frame or not header.frame_id or not camera_frame
        if parameter == BY_TF and same:
            return points
        transform = self._lookup(header, camera_frame) if parameter == BY_TF else parse_transform(parameter)
        return (points.double() @ transform[:3, :3].T + transform[:3, 3]).float()

    def _lookup(self, points: Header, camera_frame: str) -> Tensor:
        """(4, 4) at the stamp of the points."""
        expected = f"expected a transform from {points.frame_id!r} to {camera_frame!r}"
        if self._buffer is None:
            advice = "set scale.points_transform"
            raise MessageError(REASON, f"{expected}, but tf2_ros is not installed; {advice}")
        try:
            stamp = Time.from_msg(points.stamp)
            found = self._buffer.lookup_transform(camera_frame, points.frame_id, stamp).transform
        except self._errors as error:
            raise TransformPendingError(REASON, f"{expected} on /tf, or in scale.points_transform: {error}") from None
        except (ValueError, OverflowError) as error:  # rclpy's, of a negative stamp
            raise MessageError(REASON, f"{expected}, at a stamp that ROS can express: {error}") from None
        t, q = found.translation, found.rotation
        return _rigid((t.x, t.y, t.z), (q.x, q.y, q.z, q.w), "/tf")


def parse_transform(parameter: str) -> Tensor:
    """(4, 4) of "X Y Z QX QY QZ QW". Raises MessageError."""
    numbers = [float(number) for number in parameter.split()]
    return _rigid(numbers[:3], numbers[3:], "scale.points_transform")


def _rigid(translation: Any, quaternion: Any, source: str) -> Tensor:
    try:
        return rigid_transform(translation, quaternion)
    except ValueError as error:
        raise MessageError(REASON, f"{source}: {error}") from None
