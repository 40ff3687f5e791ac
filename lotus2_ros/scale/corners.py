"""Corners that are followed from image to image."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from lotus2_ros.scale.patches import Patches

Array = np.ndarray[Any, np.dtype[Any]]

# Number of cells of which each holds one corner: corners everywhere, not only where contrast is strong.
CELLS = 160
# Smallest eigenvalue of the gradient's covariance at a new corner, as a fraction of the image's largest.
QUALITY = 0.003
BORDER = 8  # pixels at the edge of the image without corners
# Of Lucas and Kanade's method (Bouguet 2001): window, coarsest level of the pyramid, steps, precision.
WINDOW, LEVELS = (13, 13), 3
CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 12, 0.03)


class Corners:
    """The corners of one camera's newest image: ``pixels`` (N, 2) float32, integer pixel centers.

    They are followed from the image before, and then put where the patch around them is as it was at first.
    """

    def __init__(self) -> None:
        self.pixels = np.empty((0, 2), np.float32)
        self._image = np.empty((0, 0), np.uint8)
        self._patches = Patches()

    def follow(self, image: Array, *expected: Array) -> Array:
        """Follow the corners to the next image (h, w) uint8 of the same size, and drop those that are lost.

        ``expected`` (N, 2) is where they should be; the next one is tried if most are lost. Returns the mask (N,) of
        the corners that remain.
        """
        before, self._image = self._image, image
        kept = np.zeros(len(self.pixels), bool)
        if before.shape == image.shape and len(kept):
            for places in expected:
                followed, kept = _flow(before, image, self.pixels, places)
                if kept.mean() > 0.5:
                    break
            self.pixels, is_found = self._patches.align(image, followed)
            kept &= is_found & self._is_inside(self.pixels)
        self.keep(kept)
        return kept

    def keep(self, kept: Array) -> None:
        self.pixels = self.pixels[kept]
        self._patches.keep(kept)

    def find(self) -> int:
        """Add the best corner of each cell that has none (Shi and Tomasi 1994). Returns how many are new."""
        # At half the size, for speed: where exactly a corner lies does not matter.
        response = cv2.cornerMinEigenVal(cv2.pyrDown(self._image), 3)
        side = max(4, round((response.size / CELLS) ** 0.5))
        rows, columns = response.shape[0] // side, response.shape[1] // side
        cells = response[: rows * side, : columns * side].reshape(rows, side, columns, side).swapaxes(1, 2)
        cells = cells.reshape(rows, columns, -1)
        best = cells.argmax(-1)
        row, column = np.indices(best.shape)
        pixels = np.stack((column * side + best % side, row * side + best // side), -1) * 2
        is_free = cells.max(-1) > QUALITY * response.max()
        at = (self.pixels / (2 * side)).astype(int)
        inside = (at[:, 1] < rows) & (at[:, 0] < columns)
        is_free[at[inside, 1], at[inside, 0]] = False
        new = pixels[is_free].astype(np.float32)
        new = new[self._is_inside(new)]
        self.pixels = np.concatenate((self.pixels, new))
        self._patches.add(self._image, new)
        return len(new)

    def _is_inside(self, pixels: Array) -> Array:
        height, width = self._image.shape
        return np.asarray(((pixels >= BORDER) & (pixels < (width - BORDER, height - BORDER))).all(-1))


def _flow(before: Array, after: Array, pixels: Array, expected: Array) -> tuple[Array, Array]:
    """Where pixels (N, 2) of one image are in another, and the mask (N,) of those found (Bouguet 2001)."""
    found, status, _ = cv2.calcOpticalFlowPyrLK(
        before, after, pixels, expected.astype(np.float32), winSize=WINDOW, maxLevel=LEVELS, criteria=CRITERIA,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )  # fmt: skip
    return found, status[:, 0] > 0
