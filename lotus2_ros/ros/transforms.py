"""From the frame of a reference's points to the camera's optical frame: by parameter, or as /tf says."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Header
from torch import Tensor

from lotus2_ros.geometry.projection import rigid_transform
from lotus2_ros.ros.messages import MessageError

REASON = "reference_transform"
BY_TF = "tf"  # as scale.points_transform says it


class Transforms:
    """Looks transforms up in what /tf said since :meth:`listen`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._buffer: Any = None
        self._listener: Any = None
        self._errors: type[Exception] = Exception  # of a lookup

    def listen(self) -> None:
        """Begin, in the node's thread; /tf is a busy topic, so only when it is needed. Without tf2_ros nothing."""
        try:
            import tf2_ros  # not everywhere: it is no Python package of its own
        except ImportError:
            return
        if self._buffer is None:
            self._errors = tf2_ros.TransformException
            self._buffer = tf2_ros.Buffer()
            self._listener = tf2_ros.TransformListener(self._buffer, self._node)

    def close(self) -> None:
        if self._listener is not None:
            self._listener.unregister()

    def to_camera(self, points: Tensor, header: Header, camera_frame: str, parameter: str) -> Tensor:
        """Points (N, 3) of the header's frame in the camera's; ``parameter`` is scale.points_transform.

        Without a frame_id on either side they are taken as in the camera's. Raises MessageError.
        """
        same = header.frame_id == camera_frame or not header.frame_id or not camera_frame
        if parameter == BY_TF and same:
            return points
        transform = self._lookup(header, camera_frame) if parameter == BY_TF else parsed(parameter)
        return (points.double() @ transform[:3, :3].T + transform[:3, 3]).float()

    def _lookup(self, points: Header, camera_frame: str) -> Tensor:
        """(4, 4) at the points' stamp; what is not known yet is not waited for."""
        expected = f"expected a transform from {points.frame_id!r} to {camera_frame!r}"
        if self._buffer is None:
            advice = "set scale.points_transform"
            raise MessageError(REASON, f"{expected}, but tf2_ros is not installed; {advice}")
        try:
            found = self._buffer.lookup_transform(camera_frame, points.frame_id, Time.from_msg(points.stamp)).transform
        except self._errors as error:
            raise MessageError(REASON, f"{expected} on /tf, or in scale.points_transform: {error}") from None
        t, q = found.translation, found.rotation
        return rigid_transform((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))


def parsed(parameter: str) -> Tensor:
    """(4, 4) of "X Y Z QX QY QZ QW"."""
    numbers = [float(number) for number in parameter.split()]
    try:
        return rigid_transform(numbers[:3], numbers[3:])
    except ValueError as error:
        raise MessageError(REASON, f"scale.points_transform: {error}") from None
