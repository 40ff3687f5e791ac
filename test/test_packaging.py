"""The package's files agree with each other: manifests, requirements, what is installed, what RViz shows."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import lotus2_ros
from lotus2_ros.config import installed
from lotus2_ros.demo.deadlines import allowed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Modules of ROS that are imported without being a package of their own, or come with one that is declared.
ROS_MODULES = {
    "rclpy", "builtin_interfaces", "rcl_interfaces", "ament_index_python", "cv_bridge", "sensor_msgs_py", "tf2_ros",
}  # fmt: skip


def package_xml() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


def requirements(name: str) -> list[str]:
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def imported_modules(folder: Path) -> set[str]:
    """First parts of the names of all modules that the sources below ``folder`` import absolutely."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names


def test_one_version_and_name_everywhere() -> None:
    project = PYPROJECT["project"]
    assert project["name"] == package_xml().findtext("name") == "lotus2_ros"
    assert project["version"] == package_xml().findtext("version") == lotus2_ros.__version__
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_one_licence_everywhere() -> None:
    assert PYPROJECT["project"]["license"]["text"] == package_xml().findtext("license") == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_pip_builds_with_the_same_packages_as_setup() -> None:
    assert PYPROJECT["build-system"]["requires"] == requirements("build")


def test_setup_installs_what_the_tests_of_every_extra_need() -> None:
    extras = PYPROJECT["tool"]["setuptools"]["dynamic"]["optional-dependencies"]
    (listed,) = re.findall(r"requirements/\{(.*)\}\.txt", (ROOT / "scripts" / "setup").read_text())
    installed = {f"requirements/{name}.txt" for name in listed.split(",")}
    assert installed >= {file for extra in extras.values() for file in extra["file"]}
    assert set(extras["dev"]["file"]) >= {file for name in ("export", "ray", "view") for file in extras[name]["file"]}


def test_every_imported_ros_package_is_declared() -> None:
    declared = {item.text for item in package_xml() if item.tag in ("depend", "exec_depend")}
    modules = imported_modules(ROOT / "lotus2_ros") | imported_modules(ROOT / "launch")
    ros = {name for name in modules if name in ROS_MODULES or name.endswith("_msgs") or name.startswith("launch")}
    assert "rclpy" in ros  # or the line above sees nothing
    assert {{"tf2_ros": "tf2_ros_py"}.get(name, name) for name in ros} <= declared


def test_every_imported_library_is_required() -> None:
    distributions = {"cv2": "opencv-python-headless", "yaml": "pyyaml", "open3d": "open3d-cpu"}
    distributions["backports"] = "backports.zstd"
    distributions |= {"rerun": "rerun-sdk", "PIL": "pillow"}
    lines = [line for name in ("runtime", "export", "ray", "view") for line in requirements(name)]
    required = {re.split(r"[<>=;\[ ]", line)[0] for line in lines}
    known = set(sys.stdlib_module_names) | ROS_MODULES | {"lotus2_ros", "compression"}  # compression: 3.14's
    modules = {name for name in imported_modules(ROOT / "lotus2_ros") - known if not name.endswith("_msgs")}
    assert {distributions.get(name, name) for name in modules} <= required


def test_every_message_is_built() -> None:
    cmake = (ROOT / "CMakeLists.txt").read_text()
    messages = sorted(path.name for path in (ROOT / "msg").iterdir())
    assert messages and all(f"msg/{name}" in cmake for name in messages)


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
    ids=["alone", "spins", "policy"],
)
def test_openmp_is_set_up_before_torch_reads_it(given: dict[str, str], expected: str) -> None:
    code = "import lotus2_ros, os, sys; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    plain = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    run = subprocess.run(
        [sys.executable, "-c", code], env=plain | given, capture_output=True, text=True, check=True, timeout=allowed(60)
    )
    assert run.stdout.split() == [expected, "False"]


def test_source_tree_and_built_messages_are_one_package() -> None:
    messages = pytest.importorskip("lotus2_ros.msg", reason="the messages are not built for this Python")
    assert Path(lotus2_ros.__file__).parents[1] == ROOT
    assert not Path(messages.__file__).is_relative_to(ROOT / "lotus2_ros")


@pytest.mark.parametrize("name", ["fastdds.xml", "fastdds_small.xml"])
def test_fastdds_profile_takes_large_messages(name: str) -> None:
    namespace = "{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}"
    profiles = ElementTree.parse(ROOT / "config" / name).getroot()
    described = {item.text for item in profiles.iterfind(f".//{namespace}transport_descriptor/{namespace}transport_id")}
    used = {item.text for item in profiles.iterfind(f".//{namespace}userTransports/{namespace}transport_id")}
    assert used == described and len(used) == 2
    segment, message = (
        int(profiles.findtext(f".//{namespace}{key}", "0")) for key in ("segment_size", "maxMessageSize")
    )
    assert message <= segment  # or there is no shared memory at all
    if name == "fastdds.xml":
        assert segment >= 2 * 1920 * 1080 * 16  # two full HD clouds of x y z rgb at once
    else:
        assert segment >= 640 * 480 * 16  # one of VGA
        assert 7 * segment < 64 * 2**20  # camera, node, recorder, RViz and three more in a container


@pytest.mark.parametrize(
    ("package", "variable"),
    [("fastrtps", "FASTRTPS_DEFAULT_PROFILES_FILE"), ("fastdds", "FASTDDS_DEFAULT_PROFILES_FILE")],
)
def test_fastdds_profile_goes_by_the_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, variable: str
) -> None:
    distribution = tmp_path / "ros"
    (distribution / "share" / package).mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "none"))
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'workspace'}{os.pathsep}{distribution}")
    assert installed.fastdds_variable() == variable


def test_jazzy_has_what_kilted_has() -> None:
    def names(file: str) -> set[str]:
        return {re.split(r"[\[=]", line)[0] for line in requirements(file)}

    assert names("ros") <= names("jazzy")


@pytest.mark.parametrize(("megabytes", "name"), [(64, "fastdds_small.xml"), (8192, "fastdds.xml")])
def test_fastdds_profile_goes_by_the_shared_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, megabytes: int, name: str
) -> None:
    usage = SimpleNamespace(total=megabytes * 2**20)
    monkeypatch.setattr(installed, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", {tmp_path: usage}.__getitem__)
    assert installed.fastdds_profile() == ROOT / "config" / name


def test_fastdds_profile_without_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(installed, "SHARED_MEMORY", tmp_path / "none")
    assert installed.fastdds_profile() == ROOT / "config" / "fastdds_small.xml"


def test_rviz_shows_topics_of_the_node() -> None:
    outputs = pytest.importorskip("lotus2_ros.ros.topics", reason="no ROS here")
    kinds = {
        f"/perception/{prefix}{name}": topic.kind.__name__
        for prefix in outputs.PREFIXES.values()
        for name, topic in outputs.TOPICS.items()
    }
    displays = yaml.safe_load((ROOT / "config" / "perception.rviz").read_text())["Visualization Manager"]["Displays"]
    shown = {display["Topic"]["Value"]: display["Class"] for display in displays if "Topic" in display}
    assert shown.pop("/image") == "rviz_default_plugins/Image"
    assert {topic: f"rviz_default_plugins/{kinds.get(topic)}" for topic in shown} == shown
    wanted = ("depth/image", "normals/color", "points", "sharp/points", "relative/points", "sharp/relative/points")
    assert {f"/perception/{topic}" for topic in wanted} <= set(shown)


def test_every_deadline_of_a_test_grows_with_the_load() -> None:
    """Seconds of a quiet machine go through allowed(); waits below a second are no deadlines."""
    fixed = re.compile(r"(?:timeout=|\.wait\(|\.join\(|\.acquire\(timeout=)([1-9][\d.]*)")
    files = [*(ROOT / "test").rglob("*.py"), *(ROOT / "lotus2_ros" / "demo").glob("*.py")]
    found = [f"{file.relative_to(ROOT)}: {hit}" for file in files for hit in fixed.findall(file.read_text())]
    assert found == [], "expected allowed(seconds) of lotus2_ros/demo/deadlines.py"
