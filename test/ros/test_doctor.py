"""``lotus2 doctor`` beside a camera driver in a process of its own, and on recordings with faults."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from lotus2_ros import cli
from lotus2_ros.bags.frames import camera_info_message, header, image_message, message, typestore
from lotus2_ros.bags.writer import BagWriter
from lotus2_ros.config import Config
from lotus2_ros.config.installed import FASTDDS_PROFILE, fastdds_profile
from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.ros.doctor import diagnosis
from lotus2_ros.ros.doctor.camera import check_stamps, connected
from lotus2_ros.ros.doctor.evidence import INPUTS, Evidence, Stream
from lotus2_ros.ros.doctor.findings import Level, examine, ok
from lotus2_ros.ros.doctor.graph import Graph, check_graph
from lotus2_ros.ros.doctor.references import check_references

K = [50.0, 0.0, 30.0, 0.0, 52.0, 25.0, 0.0, 0.0, 1.0]  # of an image of 64x48
SECONDS = 2.0  # of a quiet machine

# A camera driver: images and camera_info at 20 Hz, as the JSON in its argument says.
DRIVER = """
import json, sys, time
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

wanted = json.loads(sys.argv[1])
rclpy.init()
node = Node("driver")
qos = QoSProfile(depth=5, reliability=ReliabilityPolicy[wanted["reliability"]])
images = node.create_publisher(Image, wanted["topic"], qos)
infos = node.create_publisher(CameraInfo, "camera_info", 5) if wanted["info"] is not None else None
depths = node.create_publisher(Image, "reference/depth", 5) if wanted["depth_frame"] else None
image = Image(width=64, height=48, step=192, encoding=wanted["encoding"], data=bytes(64 * 48 * 3))
depth = Image(width=64, height=48, step=128, encoding="16UC1", data=bytes([1, 8]) * (64 * 48))
strict = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
if wanted["strict_subscriber"]:
    node.create_subscription(Image, wanted["topic"], print, strict)
print("ready", flush=True)


def header(nanoseconds, frame):
    head = Header(frame_id=frame)
    head.stamp.sec, head.stamp.nanosec = divmod(nanoseconds, 10**9)
    return head


while True:
    now = time.time_ns()
    image.header = header(now, "eye")
    if infos is not None:
        infos.publish(CameraInfo(header=header(now + wanted["skew"], "eye"), **wanted["info"]))
    if depths is not None:
        depth.header = header(now, wanted["depth_frame"])
        depths.publish(depth)
    images.publish(image)
    time.sleep(0.05)
"""
GOOD = {
    "topic": "image",
    "encoding": "rgb8",
    "reliability": "RELIABLE",
    "info": {"width": 64, "height": 48, "k": K, "distortion_model": "plumb_bob", "d": [0.1, 0.0, 0.0, 0.0, 0.0]},
    "skew": 0,
    "depth_frame": "",
    "strict_subscriber": False,
}


@pytest.fixture
def drive(domain, monkeypatch) -> Iterator[Callable[..., None]]:
    """Start the driver, GOOD but for what is given, in the domain of the doctor."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    monkeypatch.setattr(diagnosis, "MACHINE", {})
    started: list[subprocess.Popen] = []

    def drive(environment: dict[str, str] | None = None, **changes) -> None:
        command = [sys.executable, "-c", DRIVER, json.dumps({**GOOD, **changes})]
        env = os.environ if environment is None else environment
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
        started.append(process)
        assert process.stdout is not None and select.select([process.stdout], [], [], allowed(60))[0]
        assert process.stdout.readline() == "ready\n"

    yield drive
    for process in started:
        process.kill()
        process.wait(allowed(60))


@pytest.fixture
def doctor(capsys, monkeypatch) -> Callable[..., tuple[int, list[str]]]:
    """Exit status and findings of the command; of the machine there are none."""
    monkeypatch.setattr(diagnosis, "MACHINE", {})

    def doctor(*arguments: str) -> tuple[int, list[str]]:
        capsys.readouterr()
        status = cli.main(["doctor", *arguments])
        return status, capsys.readouterr().out.splitlines()

    return doctor


def live(doctor, *arguments: str) -> tuple[int, list[str]]:
    return doctor("--seconds", str(allowed(SECONDS)), *arguments)


def wrongs(lines: list[str]) -> list[str]:
    return [line.removeprefix("WRONG  ") for line in lines if line.startswith("WRONG")]


@pytest.mark.ros
def test_a_good_graph_has_only_hints(drive, doctor):
    drive(depth_frame="eye")
    status, lines = live(doctor)
    assert (status, wrongs(lines)) == (0, [])
    text = "\n".join(lines)
    assert "64x48 rgb8, 0.01 MB, frame 'eye'" in text
    assert "fx 50.0, fy 52.0, cx 30.0, cy 25.0: a view of about 65 x 50 degrees" in text
    assert f"has {FASTDDS_PROFILE}={fastdds_profile()}" in text  # the driver's own
    assert "/reference/depth: 100.0 % of the pixels are measured, 2.05 to 2.05 m" in text
    assert lines[-1].startswith("0 wrong")


FAULTS = [
    ({"info": {**GOOD["info"], "k": [0.0] * 9}}, ["camera_info: /camera_info: ", "K[0] is 0", "input.fov"]),
    ({"info": {**GOOD["info"], "width": 128, "height": 96}}, ["camera_info: /camera_info: ", "128x96", "got 64x48"]),
    ({"info": {**GOOD["info"], "k": [50.0, 0, 130.0, 0, 52.0, 97.0, 0, 0, 1]}}, ["camera_info: ", "261x195"]),
    ({"info": None}, ["camera_info: nothing publishes /camera_info", "set input.fov"]),
    ({"skew": 7_000_000}, ["stamps: ", "typically +7 ms off", "input.sync_slop:=0.008"]),
    ({"topic": "/cam/image_raw"}, ["image: nothing publishes /image", "image:=/cam/image_raw"]),
    ({"encoding": "rgb10"}, ["image: /image: expected an encoding of", "got 'rgb10'"]),
    ({"depth_frame": "tof"}, ["reference/depth: ", "frame 'tof'; expected the image's, 'eye'"]),
    (
        {"reliability": "BEST_EFFORT", "strict_subscriber": True},
        ["qos: /image: driver offers BEST_EFFORT", "driver requests RELIABLE", "subscription.reliability:=best_effort"],
    ),
]


@pytest.mark.ros
@pytest.mark.parametrize(("changes", "parts"), FAULTS, ids=[next(iter(changes)) for changes, _ in FAULTS])
def test_a_fault_is_one_wrong_line_with_its_remedy(drive, doctor, changes, parts):
    drive(**changes)
    status, lines = live(doctor)
    (line,) = wrongs(lines)
    assert status == 1 and line.startswith(parts[0]) and all(part in line for part in parts), lines


@pytest.mark.ros
def test_a_driver_without_the_fast_dds_profile_is_named(drive, doctor):
    drive({name: value for name, value in os.environ.items() if name != FASTDDS_PROFILE})
    _, lines = live(doctor)
    (line,) = [line for line in lines if " publishers: /image: driver" in line]
    assert line.startswith("HINT") and f"{FASTDDS_PROFILE} is not set" in line  # its images fit into the default
    assert f"export {FASTDDS_PROFILE}={fastdds_profile()}" in line


@pytest.mark.ros
def test_parameters_change_what_is_right(drive, doctor):
    drive(info=None, topic="/cam/image_raw")
    status, lines = live(doctor, "--image", "/cam/image_raw", "--fov", "70")
    assert (status, wrongs(lines)) == (0, [])
    assert any("camera_info: none, input.fov of 70 degrees" in line for line in lines)


@pytest.mark.parametrize(
    ("parameters", "topics", "said"),
    [
        ({}, {}, "the scale stays relative"),
        ({}, {"/odom": "nav_msgs/msg/Odometry"}, "to mend: odometry:=/odom"),
        ({"scale.camera_height": 0.3}, {}, "none, scale.camera_height of 0.3 m"),
        ({"scale.metric_model": "/models/depth"}, {}, "none, scale.metric_model '/models/depth'"),
        ({"scale.fixed_frame": "odom"}, {}, "none, the camera's motion in scale.fixed_frame 'odom'"),
    ],
)
def test_what_gives_meters_without_references(parameters, topics, said):
    streams = {name: Stream(f"/{name}") for name in INPUTS}
    evidence = Evidence(Config().updated(parameters), "", streams, False, topics)
    (finding,) = check_references(evidence)
    assert said in str(finding)


def test_two_cameras_on_one_topic_are_named_and_no_slop_is_advised():
    """A slop would give the images of one camera the camera_info of the other."""
    images, infos = Stream("/image", publishers=2), Stream("/camera_info", publishers=1)
    for index in range(8):
        head = Header(frame_id="eye")
        head.stamp.nanosec = (index + 1) * 50_000_000
        images.add(Image(header=head), 0.0)
        if index % 2:
            infos.add(CameraInfo(header=head), 0.0)
    evidence = Evidence(Config(), "here", {"image": images, "camera_info": infos}, rectified=False, is_live=False)
    drivers = [SimpleNamespace(node_name=name) for name in ("usb_cam", "spinnaker")]
    graph = Graph(evidence, {"/image": drivers, "/camera_info": drivers[:1]}, {}, b"", 2, "", [])
    (line,) = [item for item in check_graph(graph) if item.level is Level.WRONG]
    assert (line.found, line.expected) == ("/image has 2 publishers: spinnaker, usb_cam", "one")
    (line,) = [item for item in check_stamps(evidence) if item.level is Level.WRONG]
    assert line.found.startswith("4 of 8 images") and line.mend == "one publisher for each of the two topics"


def record(path: Path, *, skew: int = 0, reference_frame: str = "eye", width: int = 64, **info) -> Path:
    """Five frames of 64x48, 0.1 s apart."""
    camera = Camera(width, 48, np.array(K).reshape(3, 3))
    with BagWriter(path) as bag:
        for index in range(5):
            stamp = (index + 1) * 10**8
            calibration = replace(camera_info_message(camera, header(stamp + skew, "eye")), **info)
            bag.write("/cam/camera_info", calibration, stamp)
            depth = np.full((48, 64), 2.0, np.float32)
            bag.write("/reference/depth", image_message(depth, "32FC1", header(stamp, reference_frame)), stamp)
            pixels = np.zeros((48, 64, 3), np.uint8)
            bag.write("/cam/image_raw", image_message(pixels, "rgb8", header(stamp, "eye")), stamp)
    return path


def test_a_good_recording(doctor, tmp_path):
    status, lines = doctor("--bag", str(record(tmp_path / "good.mcap")))
    assert (status, wrongs(lines)) == (0, [])
    assert any("/cam/image_raw: 5 messages, 10.0 Hz, 64x48 rgb8, 0.01 MB, frame 'eye'" in line for line in lines)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"k": np.zeros(9), "p": np.zeros(12)}, ["camera_info: /cam/camera_info: ", "K[0] is 0", "input.fov"]),
        ({"width": 128}, ["camera_info: /cam/camera_info: ", "128x48", "got 64x48"]),
        ({"skew": -20_000_000}, ["stamps: 0 of 5 images", "typically -20 ms off", "input.sync_slop:=0.021"]),
        ({"reference_frame": "tof"}, ["reference/depth: ", "frame 'tof'"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_fault_of_a_recording(doctor, tmp_path, changes, parts):
    status, lines = doctor("--bag", str(record(tmp_path / "fault.mcap", **changes)))
    (line,) = wrongs(lines)
    assert status == 1 and line.startswith(parts[0]) and all(part in line for part in parts), lines


def test_a_damaged_recording_is_a_line_and_a_missing_one_is_bad_input(doctor, tmp_path):
    bag = record(tmp_path / "cut.mcap")
    bag.write_bytes(bag.read_bytes()[:-400])
    status, lines = doctor("--bag", str(bag))
    assert status == 1 and "mcap recover" in wrongs(lines)[0]
    assert doctor("--bag", str(tmp_path / "none.mcap")) == (2, [])


def test_points_of_a_recording_need_a_transform(doctor, tmp_path):
    bag = record(tmp_path / "in.mcap")
    points = np.array([[0.0, 0.0, 2.0]], np.float32)
    fields = [
        typestore().types["sensor_msgs/msg/PointField"](name=name, offset=4 * i, datatype=7, count=1)
        for i, name in enumerate("xyz")
    ]
    cloud = message(
        "sensor_msgs/msg/PointCloud2", header=header(10**8, "lidar"), height=1, width=1, fields=fields,
        is_bigendian=False, point_step=12, row_step=12, data=points.view(np.uint8).ravel(), is_dense=True,
    )  # fmt: skip
    with BagWriter(bag) as writer:
        writer.write("/image", image_message(np.zeros((48, 64, 3), np.uint8), "rgb8", header(10**8, "eye")))
        camera = Camera(64, 48, np.array(K).reshape(3, 3))
        writer.write("/camera_info", camera_info_message(camera, header(10**8, "eye")))
        writer.write("/reference/points", cloud)
    status, lines = doctor("--bag", str(bag))
    (line,) = wrongs(lines)
    assert status == 1 and "expected a transform from 'lidar' to 'eye'" in line
    status, lines = doctor("--bag", str(bag), "--points-transform", "0 0 1 0 0 0 1")
    assert status == 0 and any("3.00 to 3.00 m" in line for line in lines)
    status, lines = doctor("--bag", str(bag), "--points-transform", "0 0 -9 0 0 0 1")
    assert status == 1 and "the camera sees none of 1 points" in wrongs(lines)[0]


def test_frames_are_connected_over_others_in_both_directions():
    links = {("map", "base"), ("base", "eye"), ("base", "lidar"), ("other", "far")}
    assert connected(links, "lidar") == {"lidar", "base", "eye", "map"}


def test_a_check_that_raises_is_a_line_and_the_others_run():
    def failing(_: CameraInfo) -> Iterator:
        raise KeyError("k")
        yield

    found = list(examine({"a": failing, "b": lambda _: iter([ok("fine")])}, CameraInfo()))
    assert [item.level for item in found] == [Level.WRONG, Level.OK]
    assert str(found[0]) == "WRONG  a: this check failed with KeyError: 'k'"
    assert str(found[1]) == "OK     b: fine"
