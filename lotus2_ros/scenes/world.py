"""The parts of a world, and the pose of a camera in it. x and y on the ground, z up, meters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lotus2_ros.scenes.builder import ScenePart


@dataclass(frozen=True)
class Light:
    """A lamp at `position`, or, far away, the sun; `color` reaches a surface that faces it at `reach` meters."""

    position: np.ndarray
    color: np.ndarray
    reach: float


@dataclass(frozen=True)
class Pose:
    """Of a camera: where, and where to. Radians: yaw from +x to +y, pitch up, roll clockwise from behind."""

    position: np.ndarray
    yaw: float
    pitch: float
    roll: float = 0.0

    def rotation(self) -> np.ndarray:
        """Optical to world: columns are the optical x, y and z axes."""
        forward = np.array(
            [np.cos(self.pitch) * np.cos(self.yaw), np.cos(self.pitch) * np.sin(self.yaw), np.sin(self.pitch)]
        )
        right = np.array([np.sin(self.yaw), -np.cos(self.yaw), 0.0])
        down = np.cross(forward, right)
        c, s = np.cos(self.roll), np.sin(self.roll)
        return np.stack((c * right + s * down, c * down - s * right, forward), axis=1)


@dataclass(frozen=True)
class World:
    """Parts and light; `choose_pose` proposes a camera; `clearance` is how near anything may come to it.

    `haze`: the share of light lost to the air per meter.
    """

    kind: str
    parts: list[ScenePart]
    lights: list[Light]
    ambient: np.ndarray
    choose_pose: Callable[[np.random.Generator], Pose]
    fov: tuple[float, float]
    clearance: float
    sky: np.ndarray | None = None
    haze: float = 0.0

    @property
    def size_of_things(self) -> float:
        """Of the larger ones, across, meters: a chair, a car. What is much larger is a wall, a floor, a road."""
        return 2.0 if self.sky is None else 5.0
