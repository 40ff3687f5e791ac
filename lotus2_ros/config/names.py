"""The names of the node and of its inputs before any remapping; ``ros/topics.py`` has those of its outputs."""

from __future__ import annotations

NODE = "perception"
NODE_PREFIX = f"/{NODE}/"  # what ~/ stands for in a node without a namespace
IMAGE_INPUT, INFO_INPUT = "image", "camera_info"
DEPTH_INPUT, POINTS_INPUT, ODOMETRY_INPUT = "reference/depth", "reference/points", "odometry"


def option_of(name: str) -> str:
    """The option of a command for the topic of an input: ``--reference-depth`` for ``reference/depth``."""
    return f"--{name.replace('/', '-').replace('_', '-')}"
