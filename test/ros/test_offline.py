"""Recordings through the model: the same results by any number of workers and after any interruption."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")

from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from lotus2_ros import cli
from lotus2_ros.bags import ResumableBag, open_recording, read_messages
from lotus2_ros.bags.frames import camera_info_message, header, image_message, message, typestore
from lotus2_ros.config import Config
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.loading import load, load_estimator
from lotus2_ros.inference.processes import Processes
from lotus2_ros.inference.work import OwnProcess
from lotus2_ros.ros import offline
from lotus2_ros.ros.offline import Task, process_recording
from lotus2_ros.ros.serialized import deserialize

pytestmark = pytest.mark.slow

HEIGHT, WIDTH, PERIOD = 48, 64, 10**8
CAMERA = Camera.from_intrinsics(WIDTH, HEIGHT, 60.0, 61.0, 30.0, 25.0)
OPTICAL = (-0.5, 0.5, -0.5, 0.5)  # of a camera that looks along x of its parent
SCALE, SHIFT = 0.4, 0.15  # of the model's disparity, in 1 / m


def picture(index: int) -> np.ndarray:
    scene = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH + 40, 3), dtype=np.uint8)
    return np.ascontiguousarray(scene[:, index : index + WIDTH])


def cloud(points: np.ndarray, head) -> object:
    fields = [
        message("sensor_msgs/msg/PointField", name=name, offset=4 * i, datatype=7, count=1)
        for i, name in enumerate("xyz")
    ]
    return message(
        "sensor_msgs/msg/PointCloud2", header=head, height=1, width=len(points), fields=fields, is_bigendian=False,
        point_step=12, row_step=12 * len(points), data=points.astype(np.float32).view(np.uint8).ravel(), is_dense=True,
    )  # fmt: skip


def static_transform() -> object:
    """Of the camera ``eye`` in the lidar: 0.3 m ahead and 0.1 m below."""
    vector = message("geometry_msgs/msg/Vector3", x=0.3, y=0.0, z=-0.1)
    rotation = message("geometry_msgs/msg/Quaternion", **dict(zip("xyzw", OPTICAL, strict=True)))
    transform = message("geometry_msgs/msg/Transform", translation=vector, rotation=rotation)
    stamped = message(
        "geometry_msgs/msg/TransformStamped", header=header(0, "lidar"), child_frame_id="eye", transform=transform
    )
    return message("tf2_msgs/msg/TFMessage", transforms=[stamped])


def record(path: Path, frames: int, reference: str, bundle: Path) -> Path:
    """A panning camera. Every third frame has depth, or points of a lidar, that fit the model's disparity."""
    estimator = load(bundle)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict = {}

        def write(topic, item, time_ns):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, item.__msgtype__, typestore=typestore())
            writer.write(connections[topic], time_ns, typestore().serialize_cdr(item, item.__msgtype__))

        write("/tf_static", static_transform(), 0)
        for index in range(frames):
            stamp = (index + 1) * PERIOD
            head = header(stamp, "eye")
            write("/camera/camera_info", camera_info_message(CAMERA, head), stamp)
            write("/camera/image", image_message(picture(index), "rgb8", head), stamp)
            if index % 3 == 0:  # 3 ms later, and recorded after the image
                depth = 1 / (SCALE * estimator.predict(picture(index), CAMERA).disparity + SHIFT)
                late = stamp + 3 * 10**6
                if reference == "depth":
                    write("/reference/depth", image_message(depth.numpy(), "32FC1", header(late, "eye")), late + 10**6)
                elif reference == "points":
                    x, y, z = CAMERA.unproject(depth).reshape(-1, 3).unbind(-1)
                    in_lidar = torch.stack([z + 0.3, -x, -y - 0.1], -1).numpy()
                    write("/reference/points", cloud(in_lidar, header(late, "lidar")), late + 10**6)
    return path


@pytest.fixture(scope="module")
def with_depth(tmp_path_factory, random_bundle) -> Path:
    return record(tmp_path_factory.mktemp("depth") / "in", 8, "depth", random_bundle)


def run(source: Path, out: Path, workers, config, task=None, **options) -> Path:
    bag = ResumableBag(out, "bag", {}, [source], say=lambda line: None, **options)
    with bag:
        process_recording(workers, task or Task(open_recording([source]), source), bag, config)
    return out


def contents(bag: Path) -> list:
    """All messages, reports without the times that they took."""
    found = []
    for topic, kind, time_ns, raw in read_messages(bag):
        item = deserialize(raw, kind)
        if topic.endswith("/report"):
            item.latency_names, item.latency_ms = [], []
        found.append((topic, time_ns, str(item)))
    return found


def depths(bag: Path) -> dict[int, torch.Tensor]:
    found = {}
    for _, kind, time_ns, raw in read_messages(bag, ["/perception/depth/image"]):
        found[time_ns] = torch.from_numpy(np.frombuffer(deserialize(raw, kind).data, np.float32).copy())
    return found


def test_points_of_a_lidar_give_meters_through_the_transforms_of_the_bag(tmp_path, random_bundle):
    source = record(tmp_path / "in", 4, "points", random_bundle)
    arguments = ["bag", str(source), str(tmp_path / "out"), "--model", str(random_bundle), "--keep-topics", "all"]
    assert cli.main(arguments) == 0
    reports = [deserialize(raw, kind) for _, kind, _, raw in read_messages(tmp_path / "out", ["/perception/report"])]
    assert [report.scale_source for report in reports] == ["reference_points"] * 4
    first = reports[0]
    assert (first.scale, first.shift) == pytest.approx((SCALE, SHIFT), rel=0.02)
    assert first.scale_age == pytest.approx(-0.003, abs=1e-6)  # with the frame before it, not with the next
    topics = {topic for topic, *_ in read_messages(tmp_path / "out")}
    assert {"/tf_static", "/reference/points"} <= topics and not {t for t in topics if t.startswith("/camera/")}


def test_a_run_that_is_killed_goes_on_exactly(tmp_path, random_bundle, with_depth, monkeypatch):
    config = Config().updated({"model.path": str(random_bundle), "scale.local_field": True})
    workers = OwnProcess(load_estimator(config))
    expected = contents(run(with_depth, tmp_path / "whole", workers, config))
    monkeypatch.setattr(offline, "CHECKPOINT_PERIOD", 0.0)
    write_frame = offline.write_frame

    def killed(bag, frame):
        if frame.stamp_ns == 6 * PERIOD:
            os.kill(os.getpid(), signal.SIGKILL)
        write_frame(bag, frame)

    child = os.fork()  # without threads of torch: OMP_NUM_THREADS may be more, but the model is not run before
    if child == 0:
        torch.set_num_threads(1)
        offline.write_frame = killed
        run(with_depth, tmp_path / "out", workers, config)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert (tmp_path / "out.partial").is_dir() and not (tmp_path / "out").exists()
    found = contents(run(with_depth, tmp_path / "out", workers, config, resume=True))
    assert found == expected


def test_a_worker_that_is_killed_changes_nothing(tmp_path, random_bundle, with_depth):
    config = Config().updated({"model.path": str(random_bundle)})
    expected = depths(run(with_depth, tmp_path / "one", OwnProcess(load_estimator(config)), config))
    workers = Processes(config, 1)  # with two frames in progress
    try:
        recording = open_recording([with_depth])

        def frames():
            for index, frame in enumerate(recording.frames()):
                if index == 4:
                    os.kill(next(iter(workers._executor._processes)), signal.SIGKILL)
                yield frame

        task = Task(replace(recording, frames=frames), with_depth)
        found = depths(run(with_depth, tmp_path / "two", workers, config, task))
    finally:
        workers.close()
    assert list(found) == list(expected) and len(found) == 8
    for stamp, depth in found.items():
        torch.testing.assert_close(depth, expected[stamp], rtol=5e-6, atol=1e-6)  # rounding


def test_types_that_are_unknown_here_are_kept_with_their_definition(tmp_path, random_bundle, with_depth):
    source = tmp_path / "in"
    theirs = get_typestore(Stores.ROS2_KILTED)
    theirs.register(get_types_from_msg("int32 number\n", "their_msgs/msg/Own"))
    with Writer(source, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {}
        for topic, kind, time_ns, raw in islice(read_messages(with_depth), 4):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=typestore())
            writer.write(connections[topic], time_ns, raw)
        own = writer.add_connection("/own", "their_msgs/msg/Own", typestore=theirs)
        item = theirs.types["their_msgs/msg/Own"](number=7)
        writer.write(own, PERIOD, theirs.serialize_cdr(item, "their_msgs/msg/Own"))
    config = Config().updated({"model.path": str(random_bundle)})
    task = Task(open_recording([source]), source, keep_topics=["own"])
    out = run(source, tmp_path / "out", OwnProcess(load_estimator(config)), config, task)
    ((topic, kind, time_ns, raw),) = read_messages(out, ["/own"])
    assert (topic, kind, time_ns) == ("/own", "their_msgs/msg/Own", PERIOD)
    assert theirs.deserialize_cdr(raw, kind).number == 7


def test_several_recordings_go_into_a_folder_and_failed_frames_are_listed(tmp_path, random_bundle, with_depth, capsys):
    import cv2

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(2):
            cv2.imwrite(str(tmp_path / name / f"{index}.png"), picture(index))
    cv2.imwrite(str(tmp_path / "b" / "2.png"), picture(0)[:1, :1])  # too small for the model
    out = tmp_path / "out"
    arguments = ["bag", str(tmp_path / "a"), str(tmp_path / "b"), str(out), "--model", str(random_bundle)]
    assert cli.main(arguments) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a", "b"]
    assert "failed: frame 2: " in capsys.readouterr().out
    assert cli.main([*arguments, "--resume"]) == 0  # both are done
    (tmp_path / "c" / "a").mkdir(parents=True)
    assert cli.main(["bag", str(tmp_path / "a"), str(tmp_path / "c" / "a"), str(out)]) == 2
    assert "have the same name" in capsys.readouterr().err
