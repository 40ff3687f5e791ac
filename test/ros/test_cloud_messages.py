"""Clouds: those of other sensors in, organized ones out."""

import math
from array import array

import numpy as np
import pytest
import torch
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.cloud import organized_cloud
from lotus2_ros.ros.clouds import points_to_tensor, tensor_to_cloud
from lotus2_ros.ros.messages import MessageError

POINTS = np.array([[1.5, -2.0, 3.25], [0.5, 0.25, 7.0], [-1.0, 4.0, 0.125], [9.0, 8.0, 7.0]], np.float32)


def xyz(*offsets, datatype=PointField.FLOAT32, count=1):
    return [PointField(name=n, offset=o, datatype=datatype, count=count) for n, o in zip("xyz", offsets, strict=True)]


def cloud_message(points=POINTS, kind="<f4", offsets=(0, 4, 8), step=16, columns=None, padding=0, **changes):
    """A PointCloud2 of rows of ``columns`` points, garbage wherever no coordinate is, with other fields beside them."""
    width = columns or len(points)
    layout = np.dtype({"names": list("xyz"), "formats": [kind] * 3, "offsets": list(offsets), "itemsize": step})
    values = np.frombuffer(b"\xab" * step * len(points), layout).copy()
    for column, name in enumerate("xyz"):
        values[name] = points[:, column]
    rows = values.view(np.uint8).reshape(-1, width * step)
    rows = np.concatenate((rows, np.full((len(rows), padding), 0xAB, np.uint8)), axis=1)
    datatype = PointField.FLOAT64 if kind.endswith("8") else PointField.FLOAT32
    fields = [PointField(name=n, offset=o, datatype=datatype, count=1) for n, o in zip("xyz", offsets, strict=True)]
    fields.insert(1, PointField(name="ring", offset=3, datatype=PointField.UINT16, count=1))
    cloud = PointCloud2(height=len(rows), width=width, fields=fields, is_bigendian=kind.startswith(">"))
    cloud.point_step, cloud.row_step, cloud.data = step, rows.shape[1], array("B", rows.tobytes())
    for name, value in changes.items():
        setattr(cloud, name, value)
    return cloud


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("width", [4, 2])
@pytest.mark.parametrize(
    ("offsets", "step"), [((0, 4, 8), 12), ((0, 4, 8), 17), ((20, 3, 9), 30)], ids=["packed", "odd", "shuffled"]
)
@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", ">f8"])
def test_points_of_any_layout(kind, offsets, step, width, padding):
    wide = int(kind[2]) // 4
    cloud = cloud_message(POINTS, kind, tuple(wide * offset for offset in offsets), wide * step, width, padding)
    points = points_to_tensor(cloud)
    assert points.dtype == torch.float32 and np.array_equal(points, POINTS)


def test_a_point_may_fill_the_message_to_its_last_byte():
    """The last row has no padding behind it, and the last coordinate none behind that."""
    cloud = cloud_message(offsets=(0, 4, 12), step=16, columns=2)
    assert cloud.row_step * cloud.height == len(cloud.data)
    assert np.array_equal(points_to_tensor(cloud), POINTS)


def test_a_count_of_zero_is_one_number():
    assert np.array_equal(points_to_tensor(cloud_message(fields=xyz(0, 4, 8, count=0))), POINTS)


def test_points_beyond_float32_are_left_out():
    points = POINTS.astype(np.float64)
    points[1] = 1e300
    assert np.array_equal(points_to_tensor(cloud_message(points, "<f8", (0, 8, 16), 24)), POINTS[[0, 2, 3]])


def test_points_that_are_not_finite_are_left_out():
    points = POINTS.copy()
    points[1, 2], points[2, 0] = np.nan, np.inf
    assert np.array_equal(points_to_tensor(cloud_message(points)), POINTS[[0, 3]])


@pytest.mark.parametrize(
    ("cloud", "reason", "text"),
    [
        (
            cloud_message(fields=cloud_message().fields[:2]),
            "fields",
            "expected one x, y and z .*, got x of datatype 7",
        ),
        (
            cloud_message(fields=[PointField(name=n, offset=0, datatype=PointField.INT16, count=1) for n in "xyz"]),
            "fields",
            "FLOAT32 or FLOAT64 each, got x of datatype 3",
        ),
        (cloud_message(fields=xyz(0, 4, 8) + xyz(0, 4, 8)[:1]), "fields", "got .*, x of datatype 7 x 1$"),
        (cloud_message(fields=xyz(0, 4, 8, count=2)), "fields", "x of datatype 7 x 2"),
        (cloud_message(fields=xyz(0, 2, 8)), "fields", "that do not overlap, got x at 0, y at 2"),
        (cloud_message(fields=xyz(0, 4, 2**31 - 3)), "data", "points of at least 2147483649 bytes, got point_step 16"),
        (cloud_message(fields=xyz(0, 4, 2**31 - 8)), "data", "points of at least 2147483644 bytes"),
        (cloud_message(fields=xyz(0, 4, 2**32 - 1)), "data", "points of at least 4294967299 bytes"),
        (cloud_message(fields=xyz(0, 4, 2**31 - 1), point_step=2**32 - 1), "data", "got point_step 4294967295"),
        (cloud_message(width=2**32 - 1, height=2**32 - 1), "data", "4294967295 rows of 4294967295 points"),
        (cloud_message(width=2**16, height=2**16, point_step=2**16, row_step=0), "data", "row_step 0"),
        (cloud_message(height=2**32 - 1, row_step=64), "data", "4294967295 rows of 4"),
        (cloud_message(data=array("B", bytes(60))), "data", "1 rows of 4 points .* and 60 bytes"),
        (cloud_message(row_step=48), "data", "row_step 48"),
        (cloud_message(point_step=8), "data", "point_step 8"),
        (cloud_message(np.full((3, 3), np.nan)), "empty", "got 3, all NaN"),
        (PointCloud2(fields=cloud_message().fields, point_step=12), "empty", "got 0x0"),
        (cloud_message(width=0, height=2**32 - 1, row_step=0), "empty", "got 0x4294967295"),
        (cloud_message(width=2**32 - 1, height=0), "data", "row_step 64"),
    ],
)
def test_bad_clouds_say_what_was_expected_and_what_came(cloud, reason, text):
    with pytest.raises(MessageError, match=text) as caught:
        points_to_tensor(cloud)
    assert caught.value.reason == reason


@pytest.mark.parametrize("with_sigma", [False, True])
@pytest.mark.parametrize("with_normals", [False, True])
def test_clouds_are_organized_with_packed_color(with_normals, with_sigma):
    camera, depth = Camera.from_intrinsics(5, 3, 4.0, 3.0, 2.2, 0.7), 1 + torch.rand(3, 5)
    depth[1, 2] = torch.nan
    image = torch.randint(0, 256, (3, 5, 3), dtype=torch.uint8)
    normals = torch.rand(3, 5, 3) if with_normals else None
    sigma = torch.rand(3, 5) if with_sigma else None
    rows = organized_cloud(
        depth, camera, image, normals, stride=1, min_depth=0.0, max_depth=math.inf, edge_threshold=0.05, sigma=sigma
    )
    cloud = tensor_to_cloud(rows, Header(frame_id="cam"))
    assert (cloud.height, cloud.width) == (3, 5) and not cloud.is_dense
    assert cloud.row_step == 5 * cloud.point_step and len(cloud.data) == 3 * cloud.row_step
    names = [field.name for field in cloud.fields]
    assert (
        names == ["x", "y", "z", "rgb"] + ["normal_x", "normal_y", "normal_z"] * with_normals + ["sigma"] * with_sigma
    )
    values = np.frombuffer(cloud.data, np.float32).reshape(3, 5, -1)
    assert np.array_equal(values[..., :3], camera.unproject(depth).numpy(), equal_nan=True)
    packed = np.ascontiguousarray(values[..., 3]).view(np.uint32)
    assert np.array_equal(packed >> 16, image[..., 0]) and np.array_equal(packed & 255, image[..., 2])
    assert np.array_equal((packed >> 8) & 255, image[..., 1])
    if normals is not None:
        assert np.array_equal(values[..., 4:7], normals.numpy())
    if sigma is not None:
        assert np.array_equal(values[..., -1], sigma.numpy())
