"""The layout for Foxglove, against what the node publishes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from lotus2_ros.ros.topics import TOPICS


def test_the_layout_of_foxglove_has_topics_that_are_published():
    layout = json.loads((Path(__file__).parents[2] / "config" / "foxglove.json").read_text())
    text = json.dumps(layout["configById"])
    names = {word.partition("{")[0].partition(".")[0] for word in text.split('"') if word.startswith("/perception/")}
    known = {f"/perception/{stage}{name}" for name in TOPICS for stage in ("", "sharp/")} | {"/perception/report"}
    assert len(names) >= 7 and names <= known

    def panels(part):
        return {part} if isinstance(part, str) else panels(part["first"]) | panels(part["second"])

    assert panels(layout["layout"]) == set(layout["configById"])
