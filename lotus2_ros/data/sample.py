"""One image with its ground truth."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """An image and its truth.

    image (H, W, 3) uint8 RGB; depth (H, W) float32, meters along z, +Inf in the sky, NaN where it is not known or does
    not count; normals (H, W, 3) float32, unit, in the optical frame, toward the camera, NaN where they are not known;
    K (3, 3) pixels, integer pixel centers. None: the data set does not have it.
    """

    name: str
    image: Tensor
    depth: Tensor | None = None
    normals: Tensor | None = None
    K: Tensor | None = None
