"""The image in which corners are followed, and the rays of its pixels."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from torch import Tensor

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.scale.corners import Array

LONGER_SIDE = 640  # pixels


class CornerImage:
    """A gray image of at most 640 pixels, made of the camera's; ``focal`` is its focal length in pixels."""

    def __init__(self, camera: Camera) -> None:
        self._rays = camera.rays[..., :2].cpu().numpy()
        self._factor = min(1.0, LONGER_SIDE / max(camera.width, camera.height))
        self._size = round(camera.width * self._factor), round(camera.height * self._factor)
        self.focal = float(camera.K[0, 0]) * self._factor

    def gray(self, image: Tensor) -> Array:
        gray: Any = cv2.cvtColor(image.numpy(), cv2.COLOR_RGB2GRAY)
        if self._factor < 1:
            gray = cv2.resize(gray, self._size, interpolation=cv2.INTER_AREA)
        return gray

    def to_image(self, pixels: Array) -> Array:
        """Places (N, 2) in the camera's image; pixels of both have their centers at integers."""
        return np.asarray((pixels + 0.5) / self._factor - 0.5)

    def at(self, pixels: Array) -> Array:
        """The rays (N, 2) at places between pixels; NaN outside the lens."""
        places = self.to_image(pixels.astype(np.float64))
        height, width = self._rays.shape[:2]
        low = np.clip(np.floor(places).astype(int), 0, (width - 2, height - 2))
        u, v = (places - low).T[..., None]
        x, y = low.T
        top = (1 - u) * self._rays[y, x] + u * self._rays[y, x + 1]
        bottom = (1 - u) * self._rays[y + 1, x] + u * self._rays[y + 1, x + 1]
        return np.asarray((1 - v) * top + v * bottom)
