"""Messages as sensors send them."""

from __future__ import annotations

from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header
from torch import Tensor

from lotus2_ros.ros.bridge import create_cloud


def header_of(stamp: float, frame: str = "camera") -> Header:
    """``stamp`` in seconds."""
    header = Header(frame_id=frame)
    header.stamp.sec, header.stamp.nanosec = divmod(round(stamp * 1e9), 10**9)
    return header


def cloud_of(points: Tensor, header: Header) -> PointCloud2:
    """An unorganized cloud of points (N, 3) float32."""
    fields = [PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, name in enumerate("xyz")]
    rows = points.contiguous().numpy().view([(name, "f4") for name in "xyz"]).reshape(-1)
    return create_cloud(header, fields, rows)
