"""All checks in their order: of the machine, and of a running graph or a recording."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lotus2_ros.config import Config
from lotus2_ros.ros.doctor.findings import Checks, Finding, Level, examine, wrong
from lotus2_ros.ros.doctor.machine import MACHINE

if TYPE_CHECKING:
    from lotus2_ros.ros.doctor.evidence import Evidence

LISTEN = 5.0  # seconds, by default


def diagnose(config: Config, names: Mapping[str, str], bag: Path | None, seconds: float | None) -> Iterator[Finding]:
    """The findings of all checks. ``names``: the topics of the node's inputs that differ from their names.

    ``seconds``: how long to listen, or how much of the recording to read; None: the default, or all of it.
    """
    for finding in examine(MACHINE, config):
        yield finding
        if (finding.about, finding.level) == ("middleware", Level.WRONG):
            return  # what imports rclpy would end this process
    try:
        from lotus2_ros.ros.doctor.camera import CAMERA
        from lotus2_ros.ros.doctor.references import REFERENCES
    except ImportError as error:  # without torch or ROS
        about = "graph" if bag is None else "recording"
        yield replace(wrong(f"not examined: {error}", mend="what is wrong above, first"), about=about)
        return
    checks = {**CAMERA, **REFERENCES}
    yield from (
        _graph(checks, config, names, seconds) if bag is None else _recording(checks, config, names, bag, seconds)
    )


def _graph(
    checks: Checks[Evidence], config: Config, names: Mapping[str, str], seconds: float | None
) -> Iterator[Finding]:
    from lotus2_ros.ros.doctor.graph import GRAPH, listen

    graph = listen(config, names, LISTEN if seconds is None else seconds)
    yield from examine(GRAPH, graph)
    yield from examine(checks, graph.evidence)


def _recording(
    checks: Checks[Evidence], config: Config, names: Mapping[str, str], bag: Path, seconds: float | None
) -> Iterator[Finding]:
    from lotus2_ros.config.errors import InputError
    from lotus2_ros.ros.doctor.recording import read

    try:
        evidence, damages = read(bag, config, names, seconds)
    except InputError as error:
        yield replace(wrong(str(error)), about="recording")
        return
    for damage in damages:
        yield replace(wrong(damage), about="recording")
    yield from examine(checks, evidence)
