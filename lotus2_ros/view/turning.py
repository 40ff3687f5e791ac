"""An animated picture: an image beside its cloud, seen by a camera that swings from side to side."""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image
from torch import Tensor

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.view.preview import cloud_view

SWING, PITCH = 26.0, 12.0  # degrees
VIEWS, FRAME_MS, COLORS = 15, 90, 128
PANEL = 400  # pixels, width of each half
BYTES = 3_000_000  # of a file; messengers and READMEs take no more


def save_turning(path: Path | str, image: Tensor, depth: Tensor, camera: Camera, panel: int = PANEL) -> None:
    """A GIF of an image (H, W, 3) uint8 and its cloud; depth (H, W) along z.

    Raises ValueError without a single point.
    """
    size = panel, round(panel * image.shape[0] / image.shape[1])
    step = max(1, image.shape[1] // panel // 2)  # as many points as the panel has pixels, and a few more
    if step > 1:
        rows, columns = image.shape[0] // step, image.shape[1] // step
        image, depth = image[::step, ::step][:rows, :columns], depth[::step, ::step][:rows, :columns]
        camera = camera.resize(columns, rows)
    left = _picture(image).resize(size)
    angles = [-SWING * math.cos(math.pi * i / (VIEWS - 1)) for i in range(VIEWS)]
    there = []
    for angle in angles:
        view = cloud_view(image, depth, camera, yaw=angle, pitch=PITCH)
        if view is None:
            raise ValueError("expected depth with some points, got none")
        frame = Image.new("RGB", (2 * panel, size[1]))
        frame.paste(left, (0, 0))
        frame.paste(_picture(view).resize(size), (panel, 0))
        there.append(frame)
    palette = there[VIEWS // 2].quantize(COLORS, dither=Image.Dither.NONE)  # one for all: the image must not flicker
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in there + there[-2:0:-1]]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0, optimize=True)
    if Path(path).stat().st_size > BYTES and panel > 100:
        save_turning(path, image, depth, camera, panel * 3 // 4)


def _picture(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.cpu().numpy())
