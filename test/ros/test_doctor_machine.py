"""What ``lotus2 doctor`` says of a machine, and how long it waits for a graph."""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace

import pytest

from lotus2_ros import cli
from lotus2_ros.config import Config
from lotus2_ros.config.installed import FASTDDS_PROFILE
from lotus2_ros.ros.doctor import connection, diagnosis, graph, machine
from lotus2_ros.ros.doctor.findings import Level, examine


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read"),
        ("<dds>", "cannot be read"),
        ("<dds/>", "has shared memory segments of 0 MB"),
        ("<dds xmlns='http://x'><segment_size>262144</segment_size></dds>", "has shared memory segments of 0.25 MB"),
        ("<dds xmlns='http://x'><segment_size>8388608</segment_size></dds>", ""),
    ],
)
def test_a_profile_of_fast_dds(tmp_path, content, problem):
    file = tmp_path / "profile.xml"
    if content is not None:
        file.write_text(content)
    found = connection.profile_problem({FASTDDS_PROFILE: str(file)})
    assert problem in found and bool(problem) == bool(found)
    assert connection.profile_problem({}) == f"{FASTDDS_PROFILE} is not set"


def test_the_machine(monkeypatch, tmp_path):
    """Another Python, a full /dev/shm, a package of the wrong version, a bundle that is none."""
    levels = {about: {item.level for item in found} for about, found in by_check(Config()).items()}
    assert levels["python"] == levels["ros"] == levels["model"] == {Level.OK}
    monkeypatch.setattr(machine.sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(total=64 * 2**20, free=2**20))
    monkeypatch.setattr(machine.metadata, "version", lambda name: "0.0.1")
    found = by_check(Config().updated({"model.path": str(tmp_path)}))
    assert found["python"][0].expected == "3.10 to 3.14"
    assert "/dev/shm of 64 MB, 1 MB free" in found["shared memory"][0].found
    assert any(item.found == "torch 0.0.1" and "pip install -r" in item.mend for item in found["packages"])
    assert "neither a bundle (bundle.json) nor a released layout" in found["model"][0].found
    assert all(found[about][0].level is Level.WRONG for about in ("python", "shared memory", "packages", "model"))


def test_a_middleware_that_is_not_installed_is_named_and_ends_nothing(monkeypatch, capsys):
    """To import rclpy with it ends the process with status 102."""
    monkeypatch.setattr(diagnosis, "MACHINE", {"middleware": connection.check_middleware, "ros": machine.check_ros})
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_nonsense_cpp")
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    assert cli.main(["doctor", "--seconds", "1"]) == 1
    (line, count) = capsys.readouterr().out.splitlines()
    assert line.startswith("WRONG  middleware: RMW_IMPLEMENTATION=rmw_nonsense_cpp does not load: ")
    assert "unset RMW_IMPLEMENTATION, or apt install ros-jazzy-rmw-nonsense-cpp" in line and count.startswith("1 wrong")


def test_a_machine_without_network_is_named(monkeypatch):
    def unreachable(self, data, address) -> None:
        raise OSError(101, "Network is unreachable")

    (found,) = connection.check_network(Config())
    assert found.level is Level.OK
    monkeypatch.setattr(connection.socket, "socket", type("Socket", (socket.socket,), {"sendto": unreachable}))
    (found,) = connection.check_network(Config())
    assert found.level is Level.WRONG and found.mend == "ip link set lo up"


class Discovered:
    """A node in whose graph a driver appears after some looks, and an executor that only takes time."""

    def __init__(self, driver_after: int, publisher_after: int) -> None:
        self.looks, self.driver_after, self.publisher_after = 0, driver_after, publisher_after

    def count_publishers(self, topic: str) -> int:
        return int(self.looks >= self.publisher_after)

    def get_node_names(self) -> list[str]:
        return ["driver", "doctor"][self.looks < self.driver_after :]

    def get_topic_names_and_types(self) -> list:
        return []

    def spin_once(self, timeout_sec: float) -> None:
        self.looks += 1


@pytest.mark.parametrize(
    ("driver_after", "publisher_after", "looks"),
    [
        (0, 0, 0),
        (40, 60, 60),  # 4 and 6 s, after Fast DDS said a second time who is there
        (10, 1000, 31),  # a node without camera: nothing changes for 2 s
        (1000, 1000, 80),  # nobody
    ],
)
def test_publishers_are_waited_for_as_long_as_discovery_may_take(monkeypatch, driver_after, publisher_after, looks):
    found = Discovered(driver_after, publisher_after)
    monkeypatch.setattr(graph.time, "monotonic", lambda: found.looks * 0.1)
    graph._discover(found, found, ["/image"], seconds=2.0)
    assert found.looks == pytest.approx(looks, abs=1)


def test_the_memory_of_a_gpu():
    weights = 9 * 10**9
    for free, total, level in ((20, 24, Level.OK), (5, 24, Level.WRONG), (7, 8, Level.WRONG)):
        found = machine._gpu_memory("float8 has weights of 9.00 GB", weights, free * 10**9, total * 10**9)
        assert found.level is level
    assert "nf4" in found.mend


EXPORTED = {
    "format": 1, "family": "onnx", "name": "small", "licence": "none", "tasks": ["depth"], "precision": "fp32",
    "opset": 18, "size": [48, 64], "multiple": 8, "upsampling": "bilinear", "noise_channels": 0, "sharpened": [],
    "schedules": {}, "graphs": {},
}  # fmt: skip


def test_an_exported_model_is_one_for_onnx_runtime(tmp_path):
    config = Config().updated({"model.path": str(tmp_path), "model.device": "cpu"})
    (tmp_path / "export.json").write_text(json.dumps(EXPORTED))
    (found,) = machine.check_model(config)
    assert found.level is Level.OK and "images of 64x48; runs with ONNX Runtime's CPUExecutionProvider" in found.found
    (tmp_path / "export.json").write_text(json.dumps(EXPORTED | {"size": [48]}))
    (found,) = machine.check_model(config)
    assert found.level is Level.WRONG and "export.json: missing key size.1" in found.found


def by_check(config: Config) -> dict[str, list]:
    found: dict[str, list] = {}
    for item in examine(machine.MACHINE, config):
        found.setdefault(item.about, []).append(item)
    return found
