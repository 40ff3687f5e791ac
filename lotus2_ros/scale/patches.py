"""Patches of an image around corners, and where they are in later images."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

RADIUS = 6  # pixels, of a patch
STEPS = 3  # of the alignment
# A patch is found if it correlates with the image by at least this much, and its last step was not larger, in pixels.
MIN_CORRELATION, MAX_STEP = 0.4, 0.25
MAX_GROWTH = 0.2  # of the size in one step
RIDGE = 1e-4  # relative, keeps the steps of a patch without texture in some direction finite

_reach = np.arange(-RADIUS, RADIUS + 1, dtype=np.float32)
OFFSETS = np.stack(np.meshgrid(_reach, _reach), -1).reshape(-1, 2)  # (P, 2) of a patch's pixels from its middle


class Patches:
    """N patches as they looked when they were added, without their brightness and contrast.

    Corners that are followed from image to image drift away, because the errors of all images add up. A patch that is
    compared with its first image does not drift.
    """

    def __init__(self) -> None:
        self._values = np.empty((0, len(OFFSETS)), np.float32)  # of mean 0 and length 1
        self._steps = np.empty((0, 3, len(OFFSETS)), np.float32)  # from seen values to a step: to the side, down, size
        self._size = np.empty(0, np.float32)  # in the last image, relative to the first

    def add(self, image: Array, pixels: Array) -> None:
        """Add the patches around whole pixels (N, 2), at least RADIUS + 1 from the edge of an image (H, W) uint8."""
        x, y = (pixels[:, None] + OFFSETS).astype(int).transpose(2, 0, 1)
        values = _normalized(image[y, x])
        image = image.astype(np.float32)
        across, down = (image[y, x + 1] - image[y, x - 1]) / 2, (image[y + 1, x] - image[y - 1, x]) / 2
        change = np.stack((across, down, across * OFFSETS[:, 0] + down * OFFSETS[:, 1]), 1)
        # Brightness and contrast of what is seen make no step.
        change -= change.mean(-1, keepdims=True)
        change -= (change @ values[..., None]) * values[:, None]
        square = change @ change.swapaxes(1, 2)
        square += RIDGE * (1 + np.trace(square, axis1=1, axis2=2)[:, None, None]) * np.eye(3, dtype=np.float32)
        self._values = np.concatenate((self._values, values))
        self._steps = np.concatenate((self._steps, np.linalg.solve(square, change)))
        self._size = np.concatenate((self._size, np.ones(len(pixels), np.float32)))

    def keep(self, kept: Array) -> None:
        self._values, self._steps, self._size = self._values[kept], self._steps[kept], self._size[kept]

    def align(self, image: Array, pixels: Array) -> tuple[Array, Array]:
        """Where the patches are in an image (H, W) uint8, near pixels (N, 2), and the mask (N,) of those found.

        The inverse compositional algorithm (Baker and Matthews 2004) for place and size.
        """
        for _ in range(STEPS):
            x, y = (pixels[:, k, None] + self._size[:, None] * OFFSETS[:, k] for k in range(2))
            seen = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            across, down, growth = (self._steps @ seen[..., None].astype(np.float32))[..., 0].T
            self._size = self._size / (1 + growth.clip(-MAX_GROWTH, MAX_GROWTH))
            step = self._size[:, None] * np.stack((across, down), -1)
            pixels = pixels - step
        correlation = (_normalized(seen) * self._values).sum(-1)
        return pixels, (correlation > MIN_CORRELATION) & (np.abs(step).max(-1) < MAX_STEP)


def _normalized(values: Array) -> Array:
    """Patches (N, P) of mean 0 and length 1."""
    centered = values - values.mean(-1, keepdims=True, dtype=np.float32)
    return np.asarray(centered / np.maximum(np.linalg.norm(centered, axis=-1, keepdims=True), 1e-3))
