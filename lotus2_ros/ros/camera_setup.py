"""The camera of a configured node, as its pipeline gets it."""

from __future__ import annotations

from dataclasses import dataclass

from lotus2_ros.config.live import LiveConfig
from lotus2_ros.ros.diagnostics import Diagnostics
from lotus2_ros.ros.publishers import Publishers


@dataclass(frozen=True)
class CameraSetup:
    """The objects of one camera, which live from configuration to cleanup.

    ``name`` is ONLY_CAMERA in a node with one. ``weight`` is its share of the model's turns, relative to others'.
    """

    name: str
    config: LiveConfig
    publishers: Publishers
    diagnostics: Diagnostics
    weight: float = 1.0
