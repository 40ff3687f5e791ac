"""What is estimated of one image."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.sky import sky_mask
from lotus2_ros.inference.annotations import Annotations
from lotus2_ros.model.engine.device import Stopwatch
from lotus2_ros.scale.scale import Scale


@dataclass(frozen=True)
class Geometry:
    """What is known of one image. Tensors are on the model's device, at the image's size (H, W)."""

    image: Tensor  # (H, W, 3) uint8 RGB
    camera: Camera | None
    stage: str  # core | sharpener
    scale: Scale
    annotations: Annotations = field(repr=False)
    stopwatch: Stopwatch = field(repr=False)  # of what was done for it
    latents: dict[str, Tensor] = field(repr=False, default_factory=dict)  # clean annotation latents by task
    sky: Tensor | None = field(repr=False, default=None)  # (H, W) bool; None: not looked for

    @property
    def disparity(self) -> Tensor | None:
        """(H, W) float32 in [0, 1], affine-invariant, 1 = near."""
        return self.annotations.disparity

    @property
    def normals(self) -> Tensor | None:
        """(H, W, 3) float32, unit, optical frame, toward the camera."""
        return self.annotations.normals

    @property
    def uncertainty(self) -> Tensor | None:
        """(H, W) float32, standard deviation of the disparity over a model's answers; None where there is one."""
        return self.annotations.uncertainty

    @property
    def latency(self) -> dict[str, float]:
        """Seconds per stage, in order. Waits until the model's device is done with them."""
        return self.stopwatch.read()

    @cached_property
    def depth(self) -> Tensor | None:
        """(H, W) float32 along z: metres if ``scale.metric``, else up to one unknown factor; NaN invalid, +Inf sky."""
        if self.disparity is None:
            return None
        depth = self.scale.depth_of(self.disparity)
        return depth if self.sky is None else depth.masked_fill_(self.sky, torch.inf)

    @cached_property
    def points(self) -> Tensor | None:
        """(H, W, 3) float32 in the optical frame, in the unit of ``depth``; NaN invalid. None without a camera."""
        if self.depth is None or self.camera is None:
            return None
        return self.camera.unproject(self.depth)


def sky_of(found: Annotations, scale: Scale) -> Tensor | None:
    """The sky (H, W) bool; None unless disparity and normals are both there."""
    if found.disparity is None or found.normals is None:
        return None
    return sky_mask(found.disparity, found.normals, scale.shift / scale.scale)
