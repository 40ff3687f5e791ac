"""Point clouds as messages: to tensors and back."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header
from torch import Tensor

from lotus2_ros.ros.bridge import create_cloud
from lotus2_ros.ros.messages import MessageError

# rgb: the three bytes in one float32, as all of ROS packs them.
POINT_FIELDS = ("x", "y", "z")
NORMAL_FIELDS = ("normal_x", "normal_y", "normal_z")
# By the number of channels that organized_cloud gives.
CLOUD_FIELDS = {
    len(names): names
    for normals in ((), NORMAL_FIELDS)
    for sigma in ((), ("sigma",))
    for names in [(*POINT_FIELDS, "rgb", *normals, *sigma)]
}
TYPES = {PointField.FLOAT32: "f4", PointField.FLOAT64: "f8"}
SIZES = {PointField.FLOAT32: 4, PointField.FLOAT64: 8}  # bytes


def points_to_tensor(message: PointCloud2) -> Tensor:
    """The points of a cloud of any layout and byte order as (N, 3) float32 in its frame, without those that are NaN.

    x, y and z are FLOAT32 or FLOAT64. Raises MessageError, also when no point is left.
    """
    fields = _coordinates(message)
    _check_layout(message, fields)
    shape, strides = (message.height, message.width), (message.row_step, message.point_step)
    order = ">" if message.is_bigendian else "<"
    columns = [
        np.ndarray(shape, order + TYPES[field.datatype], message.data, field.offset, strides) for field in fields
    ]
    with np.errstate(all="ignore"):  # a FLOAT64 beyond FLOAT32 becomes Inf
        points = np.stack([column.astype(np.float32).reshape(-1) for column in columns], axis=-1)
    points = points[np.isfinite(points).all(axis=-1)]
    if not len(points):
        raise MessageError(
            "empty", f"expected a cloud with some points, got {message.height * message.width}, all NaN or Inf"
        )
    return torch.from_numpy(points)


def tensor_to_cloud(packed: Tensor, header: Header) -> PointCloud2:
    """A cloud of rows (H, W, C) float32, as organized_cloud makes them."""
    height, width, channels = packed.shape
    names = CLOUD_FIELDS[channels]
    fields = [PointField(name=n, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, n in enumerate(names)]
    flat = packed.cpu().numpy().reshape(-1).view([(name, "f4") for name in names])
    message = create_cloud(header, fields, flat)
    # Organized by hand: create_cloud reads the shape of a two-dimensional array as (width, height).
    message.height, message.width, message.row_step = height, width, message.point_step * width
    return message


def _coordinates(message: PointCloud2) -> list[PointField]:
    """The fields x, y and z. Raises MessageError unless each is there once, as one number of a known type."""
    fields = {name: [field for field in message.fields if field.name == name] for name in POINT_FIELDS}
    found = [matching[0] for matching in fields.values() if len(matching) == 1]
    # Old drivers write a count of 0 for one number.
    if len(found) < 3 or any(field.datatype not in TYPES or field.count > 1 for field in found):
        got = ", ".join(f"{field.name} of datatype {field.datatype} x {field.count}" for field in message.fields)
        raise MessageError("fields", f"expected one x, y and z of FLOAT32 or FLOAT64 each, got {got or 'none'}")
    spans = sorted((field.offset, field.offset + SIZES[field.datatype]) for field in found)
    if any(end > start for (_, end), (start, _) in pairwise(spans)):
        offsets = ", ".join(f"{field.name} at {field.offset}" for field in found)
        raise MessageError("fields", f"expected fields x, y and z that do not overlap, got {offsets}")
    return found


def _check_layout(message: PointCloud2, fields: list[PointField]) -> None:
    """Raise MessageError unless every point lies within the data. In Python's integers: NumPy's overflow."""
    needed = max(field.offset + SIZES[field.datatype] for field in fields)
    row, rows = message.point_step * message.width, message.height
    if message.point_step < needed or message.row_step < row or len(message.data) < message.row_step * rows:
        raise MessageError(
            "data",
            f"expected {rows} rows of {message.width} points of at least {needed} bytes, got point_step "
            f"{message.point_step}, row_step {message.row_step} and {len(message.data)} bytes",
        )
    if not rows or not message.width:
        raise MessageError("empty", f"expected a cloud with some points, got {message.width}x{rows}")
