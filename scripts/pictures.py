"""The pictures of the README, of one RGB-D frame and the bundled model. Run this after the model has changed.

    .venv/bin/python scripts/pictures.py [--frame FOLDER] [--output docs/images]

cloud.jpg shows the image beside its cloud, turning.gif beside the cloud from a camera that swings from side to side.
FOLDER holds rgb.png, depth.png and intrinsics.json; the depth is the reference that the scale is fitted to.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import lotus2_ros
from lotus2_ros.bags.files import read_depth
from lotus2_ros.view.preview import cloud_view
from lotus2_ros.view.turning import save_turning

FRAME = Path("test/data/frames/indoor_tum_rgbd_open3d")
YAW, PITCH = 22.0, 12.0  # degrees


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frame", type=Path, default=FRAME)
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    known = json.loads((args.frame / "intrinsics.json").read_text())
    K = [[known["fx"], 0, known["cx"]], [0, known["fy"], known["cy"]], [0, 0, 1]]
    camera = lotus2_ros.Camera(known["width"], known["height"], K)
    reference = read_depth(args.frame / "depth.png", known["depth_scale"])
    geometry = lotus2_ros.load().predict(args.frame / "rgb.png", camera=camera, reference=reference)

    def view(yaw: float) -> Image.Image:
        return picture(cloud_view(geometry.image, geometry.depth, geometry.camera, yaw=yaw, pitch=PITCH))

    side_by_side([picture(geometry.image), view(YAW)]).save(args.output / "cloud.jpg", quality=88)
    save_turning(args.output / "turning.gif", geometry.image, geometry.depth, geometry.camera)


def picture(pixels: Tensor) -> Image.Image:
    """(H, W, 3) uint8 RGB."""
    return Image.fromarray(pixels.to(torch.uint8).cpu().numpy())


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    row = Image.new("RGB", (sum(p.width for p in pictures), pictures[0].height))
    for index, part in enumerate(pictures):
        row.paste(part, (sum(p.width for p in pictures[:index]), 0))
    return row


if __name__ == "__main__":
    main()
