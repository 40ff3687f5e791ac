"""RViz's layout: the topics of the node that was launched, of each of its cameras."""

from __future__ import annotations

from typing import Any

import yaml

from lotus2_ros.config.installed import share
from lotus2_ros.config.rviz import rviz_layout


def manager_of(text: str) -> dict[str, Any]:
    return yaml.safe_load(text)["Visualization Manager"]


def topics_of(displays: list[dict[str, Any]]) -> list[str]:
    return [display["Topic"]["Value"] for display in displays if "Topic" in display]


FILE = manager_of(share("config/perception.rviz").read_text())


def test_one_camera_has_the_file_s_layout() -> None:
    assert manager_of(rviz_layout("/image")) == FILE


def test_topics_of_a_namespace() -> None:
    shown = topics_of(manager_of(rviz_layout("image", "/robot/"))["Displays"])
    assert shown == [f"/robot{topic}" for topic in topics_of(FILE["Displays"])]


def test_each_of_several_cameras_has_a_group_of_its_own() -> None:
    manager = manager_of(rviz_layout("/{camera}/image_raw", "", ["front", "rear"]))
    front, rear = manager["Displays"]
    assert (front["Name"], rear["Name"]) == ("front", "rear")
    assert topics_of(rear["Displays"]) == [
        "/rear/image_raw" if topic == "/image" else topic.replace("/perception/", "/perception/rear/")
        for topic in topics_of(FILE["Displays"])
    ]
    on = [display["Name"] for display in front["Displays"] if display["Enabled"]]
    assert on == ["Image", "Coarse points", "Relative points"]
    assert manager["Global Options"]["Fixed Frame"] == "base_link"
