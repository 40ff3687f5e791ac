"""Which reference belongs to which image: the nearest in time, whatever the order of their recording."""

from __future__ import annotations

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from lotus2_ros.bags import InputError, open_recording
from lotus2_ros.bags.frames import header, image_message, message, stamp_ns, typestore
from lotus2_ros.bags.pairing import LOOKAHEAD_NS, Recorded, pair

MS = 10**6


def items(*entries):
    """(topic, stamp in ms, recorded in ms)."""
    return [Recorded(topic, f"{topic}{stamp}", stamp * MS, recorded * MS) for topic, stamp, recorded in entries]


def pairs(*entries):
    found = pair(items(*entries), "image", frozenset({"depth"}))
    return [(p.image.stamp_ns // MS, [m.stamp_ns // MS for m in p.measured]) for p in found]


def test_a_reference_belongs_to_the_nearest_image_though_the_next_follows_it():
    # The depth of 104 ms is recorded after the image of 100 ms: a reader that takes what came before would wait.
    assert pairs(("image", 100, 100), ("depth", 104, 110), ("image", 200, 200), ("depth", 196, 205)) == [
        (100, [104]),
        (200, [196]),
    ]


def test_of_several_the_nearest_comes_first_and_none_is_lost():
    entries = [("depth", 60, 60), ("depth", 130, 131), ("image", 100, 140), ("depth", 110, 141), ("image", 400, 410)]
    assert pairs(*entries) == [(100, [110, 130, 60]), (400, [])]


def test_measurements_without_a_stamp_of_their_own_are_different_ones():
    """As of a driver that leaves the stamp at 0, or of a message that was recorded twice: only their arrays differ."""
    twins = [Recorded("points", np.arange(3) + number, 100 * MS, 100 * MS) for number in range(2)]
    image, following = items(("image", 100, 101), ("image", 200, 201))
    first, second = pair([*twins, image, following], "image", frozenset({"points"}))
    assert [id(item) for item in first.measured] == [id(item) for item in twins] and second.measured == []


def test_an_image_waits_for_a_slow_sensor_but_not_for_ever():
    late = LOOKAHEAD_NS // MS
    assert pairs(("image", 100, 100), ("depth", 100, 100 + late), ("image", 900, 900))[0] == (100, [100])
    assert pairs(("image", 100, 100), ("other", 0, 101 + late), ("depth", 100, 102 + late), ("image", 900, 900)) == [
        (100, []),
        (900, [100]),
    ]


def test_a_clock_that_is_set_back_starts_anew():
    assert pairs(("image", 9000, 1), ("depth", 9001, 2), ("image", 10, 3), ("depth", 12, 4)) == [
        (9000, [9001]),
        (10, [12]),
    ]


def test_only_what_is_near_in_time_is_in_memory():
    held = 0

    def recorded():
        nonlocal held
        for index in range(100):
            held += 1
            yield Recorded("image", None, index * 100 * MS, index * 100 * MS)

    most = 0
    for paired in pair(recorded(), "image", frozenset({"depth"})):
        held -= 1
        most = max(most, held)
        assert paired.measured == []
    assert most <= LOOKAHEAD_NS // (100 * MS) + 1


def write(recorder, path, entries):
    """(topic, message, recorded in ms)."""
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {}
        for topic, item, time_ms in entries:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, item.__msgtype__, typestore=typestore())
            writer.write(connections[topic], time_ms * MS, typestore().serialize_cdr(item, item.__msgtype__))
    return path


def cloud(stamp_ms, frame, points):
    field = [
        message("sensor_msgs/msg/PointField", name=n, offset=4 * i, datatype=7, count=1) for i, n in enumerate("xyz")
    ]
    data = np.array(points, np.float32)
    return message(
        "sensor_msgs/msg/PointCloud2", header=header(stamp_ms * MS, frame), height=1, width=len(data), fields=field,
        is_bigendian=False, point_step=12, row_step=12 * len(data), data=data.view(np.uint8).ravel(), is_dense=True,
    )  # fmt: skip


def image(recorder, stamp_ms):
    return image_message(recorder.picture(), "rgb8", header(stamp_ms * MS, "eye"))


def test_points_and_transforms_of_a_bag_come_with_the_nearest_image(recorder, tmp_path):
    transforms = message("tf2_msgs/msg/TFMessage", transforms=[])
    bag = write(recorder, tmp_path / "bag", [
        ("/tf_static", transforms, 0), ("/image", image(recorder, 100), 100),
        ("/reference/points", cloud(103, "lidar", [(0, 0, 2)]), 120), ("/tf", transforms, 130),
        ("/image", image(recorder, 200), 200), ("/reference/points", cloud(199, "lidar", [(0, 0, 3)]), 240),
    ])  # fmt: skip
    recording = open_recording([bag])
    first, second = recording.frames()
    assert recording.reference == "/reference/points" and recording.count == 2
    assert [stamp_ns(points) // MS for points in first.points] == [103]
    assert [stamp_ns(points) // MS for points in second.points] == [199]
    assert [is_static for _, is_static in (*first.transforms, *second.transforms)] == [True, False]


def test_points_may_be_named_as_the_reference(recorder, tmp_path):
    bag = write(recorder, tmp_path / "bag", [
        ("/image", image(recorder, 100), 100), ("/velodyne", cloud(100, "eye", [(0, 0, 2)]), 101),
    ])  # fmt: skip
    (frame,) = open_recording([bag], reference_topic="/velodyne").frames()
    assert len(frame.points) == 1 and frame.transforms == ()
    with pytest.raises(InputError, match="no depth images on /x; depth topics: none; topics of points: /velodyne"):
        open_recording([bag], reference_topic="/x")


def test_cameras_have_references_of_their_own_namespace_and_share_the_others(recorder, tmp_path):
    depth = {camera: image_message(np.full((24, 32), 2.0, np.float32), "32FC1", header(10**8, "eye"))
             for camera in ("front", "rear")}  # fmt: skip
    bag = write(recorder, tmp_path / "bag", [
        ("/robot/front/image_raw", image(recorder, 100), 100), ("/robot/rear/image_raw", image(recorder, 100), 100),
        ("/robot/front/reference/depth", depth["front"], 101), ("/reference/depth", depth["rear"], 102),
        ("/robot/reference/points", cloud(100, "lidar", [(0, 0, 2)]), 103),
    ])  # fmt: skip
    found = {name: open_recording([bag], topic=f"/robot/{name}/image_raw").reference for name in ("front", "rear")}
    assert found["front"] == "/robot/front/reference/depth and /robot/reference/points"
    assert found["rear"] == "/reference/depth and /robot/reference/points"
