"""The files for Nav2 name what exists: topics, parameters, launch arguments."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lotus2_ros.config import Config

ROOT = Path(__file__).parents[1]
LAUNCH_FILE = ROOT / "launch" / "nav2_example.launch.py"


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / "config" / name).read_text())


def values(tree: Any, key: str) -> Iterator[Any]:
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == key:
                yield value
            yield from values(value, key)


def assigned(file: Path, name: str) -> Any:
    """The literal that a module gives a name."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{file}: expected {name}")


def test_costmaps_take_topics_of_the_node() -> None:
    page = (ROOT / "docs" / "topics.md").read_text()
    topics = set(values(read("nav2_costmap.yaml"), "topic"))
    assert {"/perception/points", "/perception/filtered/points"} <= topics
    for topic in topics - {"/perception/scan"}:
        assert f"| `{topic.replace('/perception', '~')}` |" in page


def test_every_observation_source_is_described() -> None:
    costmaps = read("nav2_costmap.yaml")
    for layer in ("voxel_layer", "obstacle_layer"):
        (found,) = values(costmaps, layer)
        sources = found["observation_sources"].split()
        assert set(sources) <= found.keys()
        assert {(found[name]["marking"], found[name]["clearing"]) for name in sources} == {(True, False), (False, True)}


def test_parameters_of_the_node_exist_and_mark_without_the_floor() -> None:
    given = read("nav2_perception.yaml")["/**/perception"]["ros__parameters"]
    config = Config().updated({f"{group}.{key}": value for group, keys in given.items() for key, value in keys.items()})
    assert config.cloud.remove_ground == "filtered"


def test_the_launch_file_passes_arguments_that_there_are() -> None:
    names = {"image", "camera_info", "reference_depth", "reference_points", "odometry", "params_file"}
    assert names <= assigned(LAUNCH_FILE, "ARGUMENTS").keys()
    assert names <= assigned(ROOT / "launch" / "perception.launch.py", "ARGUMENTS").keys()
