"""RViz's layout for a node: that of config/perception.rviz, with its displays once for each camera."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from lotus2_ros.config.installed import share
from lotus2_ros.config.names import NODE_PREFIX

SWITCHED_ON = "Image", "Coarse points", "Relative points"  # of several cameras: each picture takes a panel
FROM_BEHIND = {"Distance": 10, "Pitch": 0.8, "Yaw": 3.14, "Focal Point": {"X": 0, "Y": 0, "Z": 0}}


def rviz_layout(image: str, namespace: str = "", cameras: Sequence[str] = ()) -> str:
    """YAML for a node in ``namespace`` with images on the topic ``image``.

    Each of several ``cameras`` has a group of displays, and its name for ``{camera}`` in ``image``. They are shown in
    base_link, so /tf has to say where they are on the robot.
    """
    layout = yaml.safe_load(share("config/perception.rviz").read_text())
    manager = layout["Visualization Manager"]
    prefix = f"/{namespace.strip('/')}".rstrip("/")
    image = image if image.startswith("/") else f"{prefix}/{image}"
    displays = manager["Displays"]
    if cameras:
        shown = [display | dict.fromkeys(("Enabled", "Value"), display["Name"] in SWITCHED_ON) for display in displays]
        groups = [
            _group(name, _moved(shown, image.replace("{camera}", name), f"{prefix}{NODE_PREFIX}{name}/"))
            for name in cameras
        ]
        manager["Displays"] = groups
        manager["Global Options"]["Fixed Frame"] = "base_link"
        manager["Views"]["Current"] |= FROM_BEHIND
    else:
        manager["Displays"] = _moved(displays, image, f"{prefix}{NODE_PREFIX}")
    return yaml.safe_dump(layout, sort_keys=False)


def _group(name: str, displays: list[dict[str, Any]]) -> dict[str, Any]:
    return {"Class": "rviz_common/Group", "Name": name, "Enabled": True, "Displays": displays}


def _moved(displays: list[dict[str, Any]], image: str, node: str) -> list[dict[str, Any]]:
    """Displays of the node's topics below ``node``, and of the images; others stay."""
    moved = []
    for display in displays:
        if topic := display.get("Topic"):
            name = topic["Value"]
            topic = {**topic, "Value": name.replace(NODE_PREFIX, node) if name.startswith(NODE_PREFIX) else image}
            display = {**display, "Topic": topic}
        moved.append(display)
    return moved
