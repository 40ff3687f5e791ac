"""Past frames of one camera, for references that arrive late."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from lotus2_ros.config import ScaleConfig
from lotus2_ros.scale.scale import RelativeGeometry, Scale

FRAMES = 30  # number of frames kept
SIDE = 320  # their longer side, pixels


@dataclass(frozen=True)
class PastFrame:
    """A past frame, at low resolution, and its scale by all that is known now."""

    geometry: RelativeGeometry
    scale: Scale


class History:
    """The last frames with their scales."""

    def __init__(self) -> None:
        self._frames: deque[PastFrame] = deque(maxlen=FRAMES)

    def add(self, frame: RelativeGeometry, scale: Scale) -> None:
        """Keep a frame's disparity at low resolution."""
        step = max(1, max(frame.disparity.shape) // SIDE)
        disparity = frame.disparity[step // 2 :: step, step // 2 :: step].clone()
        self._frames.append(PastFrame(RelativeGeometry(disparity, stamp=frame.stamp), scale))

    def nearest(self, stamp: float, config: ScaleConfig) -> PastFrame | None:
        """The frame nearest in time, if it is within ``config.reference_slop`` of ``stamp``."""
        past = min(self._frames, key=lambda past: abs(past.geometry.stamp - stamp), default=None)
        return past if past is not None and config.is_near(past.geometry.stamp, stamp) else None

    def transform(self, factor: float, offset: float) -> None:
        """Replace every inverse depth by factor * inverse depth + offset, after a correction of the scale."""
        for number, past in enumerate(self._frames):
            self._frames[number] = replace(past, scale=past.scale.transformed(factor, offset))
