"""The launch file: what is given reaches the node, what is not given is not passed on."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from lotus2_ros.config.installed import FASTDDS_PROFILE, fastdds_profile
from lotus2_ros.demo.deadlines import allowed

ROOT = Path(__file__).parents[1]
LAUNCH_FILE = ROOT / "launch" / "perception.launch.py"
ARGUMENTS = {
    "model", "cameras", "namespace", "image", "image_transport", "camera_info", "reference_depth", "reference_points",
    "odometry", "params_file", "use_sim_time", "respawn", "rviz", "bag",
}  # fmt: skip


def test_arguments_and_no_default_of_its_own() -> None:
    """Runs everywhere: reads the source, as launch_ros is on no package index."""
    tree = ast.parse(LAUNCH_FILE.read_text())
    (arguments,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "ARGUMENTS"
    ]
    assert set(ast.literal_eval(arguments)) == ARGUMENTS
    defaults = [node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "default_value"]
    assert [ast.literal_eval(value) for value in defaults] == [""]


# Stands in for a program that the launch file starts: writes down how it was started.
STAND_IN = """#!{python}
import json, os, signal, sys
from pathlib import Path
files = [word for before, word in zip(sys.argv, sys.argv[1:]) if before == "--params-file"]
started = dict(arguments=sys.argv[1:], files=[Path(file).read_text() for file in files])
started["profile"] = os.environ.get("{profile}")
record = Path("{record}")
if "RECORD_BY_NAMESPACE" in os.environ:
    record = record.with_name(next(word for word in sys.argv if word.startswith("__ns:=")).removeprefix("__ns:=/"))
if record.exists():  # started for the second time
    started["again"] = True
    os.kill(os.getppid(), signal.SIGINT)
record.write_text(json.dumps(started))
"""
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
service = LaunchService()
arguments = [word.split(":=", 1) for word in sys.argv[2:]]
include = IncludeLaunchDescription(sys.argv[1], launch_arguments=arguments)
service.include_launch_description(LaunchDescription([include]))
sys.exit(service.run())
"""
Launch = Callable[..., dict[str, Any]]


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    """Launch with the given arguments and stand-ins for all programs: what started, by name, and how."""
    pytest.importorskip("launch_ros", reason="no wheel: ros-<distro>-launch-ros of a ROS distribution")
    prefix, records = tmp_path / "prefix", tmp_path / "records"
    records.mkdir()
    for place in ("lib/lotus2_ros/perception", "lib/rviz2/rviz2", "bin/ros2"):
        program = prefix / place
        program.parent.mkdir(parents=True)
        program.write_text(
            STAND_IN.format(python=sys.executable, record=records / program.name, profile=FASTDDS_PROFILE)
        )
        program.chmod(0o755)
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "lotus2_ros").touch()
    (index / "rviz2").touch()
    (prefix / "share" / "lotus2_ros").symlink_to(ROOT)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(prefix))
    monkeypatch.setenv("PATH", str(prefix / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
    monkeypatch.delenv(FASTDDS_PROFILE, raising=False)

    def run(file: Path = LAUNCH_FILE, **given: str) -> dict[str, Any]:
        words = [f"{name}:={value}" for name, value in given.items()]
        command = [sys.executable, "-c", LAUNCH, str(file), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=allowed(60))
        if done.returncode and "KeyboardInterrupt" not in done.stderr + done.stdout and "SIGINT" not in done.stderr:
            raise RuntimeError(done.stdout + done.stderr)
        return {path.name: json.loads(path.read_text()) for path in records.iterdir()}

    return run


def test_nothing_given_nothing_passed_on(launch: Launch) -> None:
    (node,) = launch().values()
    assert node["arguments"] in ([], ["--ros-args"])
    assert Path(node["profile"]) == fastdds_profile()


def test_all_given(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("/**: {ros__parameters: {sharp: {period: 2.0}}}")
    started = launch(
        model="/models/lotus2",
        namespace="front",
        image="/cam/image_raw",
        image_transport="compressed",
        camera_info="/cam/info",
        reference_depth="/tof/depth",
        reference_points="/lidar/points",
        odometry="/odom",
        params_file=str(tmp_path / "mine.yaml"),
        use_sim_time="true",
    )
    node = started.pop("perception")
    assert not started
    words = node["arguments"]
    remapped = {word for before, word in pairwise(words) if before == "-r"}
    assert remapped == {
        "__ns:=/front",
        "image:=/cam/image_raw",
        "camera_info:=/cam/info",
        "reference/depth:=/tof/depth",
        "reference/points:=/lidar/points",
        "odometry:=/odom",
    }
    assert str(tmp_path / "mine.yaml") in words
    mine, given = node["files"]  # in this order: the launch arguments override the file
    assert yaml.safe_load(mine)["/**"]["ros__parameters"] == {"sharp": {"period": 2.0}}
    assert yaml.safe_load(given)["/**"]["ros__parameters"] == {
        "model.path": "/models/lotus2",
        "input.image_transport": "compressed",
        "use_sim_time": True,
    }


def test_topics_of_several_cameras_follow_their_names(launch: Launch) -> None:
    node = launch(cameras="front, rear", image="/{camera}/image_raw", camera_info="/{camera}/info")["perception"]
    remapped = {word for before, word in pairwise(node["arguments"]) if before == "-r"}
    assert remapped == {
        "front/image:=/front/image_raw",
        "front/camera_info:=/front/info",
        "rear/image:=/rear/image_raw",
        "rear/camera_info:=/rear/info",
    }
    (given,) = node["files"]
    # launch_ros writes a list as !!python/tuple, which ROS's parser takes for a list.
    assert yaml.full_load(given)["/**"]["ros__parameters"] == {"cameras": ("front", "rear")}


def test_six_cameras_share_a_lidar(launch: Launch) -> None:
    node = launch(file=ROOT / "launch" / "six_cameras.launch.py")["perception"]
    remapped = [word for before, word in pairwise(node["arguments"]) if before == "-r"]
    assert len(remapped) == 18 and "CAM_BACK_LEFT/image:=/CAM_BACK_LEFT/image_rect" in remapped
    assert sum(word.endswith("/reference/points:=/LIDAR_TOP") for word in remapped) == 6


def test_one_topic_is_not_for_several_cameras(launch: Launch) -> None:
    with pytest.raises(RuntimeError, match=r"expected \{camera\} in the topics of several cameras, got /image_raw"):
        launch(cameras="front,rear", image="/image_raw")


def test_users_fastdds_profile_comes_first(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FASTDDS_PROFILE, "/etc/mine.xml")
    assert launch()["perception"]["profile"] == "/etc/mine.xml"


def test_rviz_and_bag(launch: Launch) -> None:
    started = launch(rviz="true", bag="/bags/a", image="/cam/image_raw")
    assert set(started) == {"perception", "rviz2", "ros2"}
    option, path = started["rviz2"]["arguments"][:2]
    assert option == "--display-config" and "Value: /cam/image_raw" in Path(path).read_text()
    Path(path).unlink()
    assert started["ros2"]["arguments"] == ["bag", "play", "--clock", "100", "/bags/a"]
    assert started["rviz2"]["profile"] == started["ros2"]["profile"] == started["perception"]["profile"]


def test_rviz_is_true_or_false(launch: Launch) -> None:
    with pytest.raises(RuntimeError, match="rviz: expected true or false, got 'yes'"):
        launch(rviz="yes")


def test_respawn_starts_the_node_again_and_has_it_exit_on_a_failure(launch: Launch) -> None:
    started = launch(respawn="true")
    assert started["perception"]["again"]
    (given,) = started["perception"]["files"]
    assert yaml.safe_load(given)["/**"]["ros__parameters"] == {"node.exit_on_failure": True}


def test_the_first_camera_leaks_nothing_into_the_second(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECORD_BY_NAMESPACE", "1")
    started = launch(file=ROOT / "launch" / "two_cameras.launch.py")
    front, rear = started["front"], started["rear"]
    assert "image:=/rear/image_raw" in rear["arguments"] and "image:=/front/image_raw" in front["arguments"]
    assert front["files"] and not rear["files"]  # only the first has a transport


def test_the_cameras_pose_for_nav2_has_six_numbers(launch: Launch) -> None:
    with pytest.raises(RuntimeError, match="camera_pose: expected 6 numbers, x y z roll pitch yaw, got '0 0 1'"):
        launch(file=ROOT / "launch" / "nav2_example.launch.py", camera_pose="0 0 1")
