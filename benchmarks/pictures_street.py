"""docs/images/street.jpg: a rendered street's cloud with all pixels, and without sky and flying pixels.

    python -m benchmarks.pictures_street [--output docs/images/street.jpg]

Depth is the rendered one as a network gives it: disparity, 0 in the sky, with edges over a few pixels.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.cloud import organized_cloud
from lotus2_ros.geometry.sky import sky_mask
from lotus2_ros.scenes import View, view
from lotus2_ros.view.preview import show, splat, view_rotation

SEED, WIDTH, HEIGHT = 5016, 640, 480
BLUR = 4  # pixels
YAW, PITCH, ASIDE = 30.0, 20.0, 0.5  # degrees, and how much farther than the middle the second camera stands
FARTHEST = 60.0  # times the nearest: where the sky hangs in a cloud that knows of none


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/images/street.jpg"))
    torch.set_num_threads(1)
    save(parser.parse_args().output, view(SEED, WIDTH, HEIGHT, "street"))


def save(path: Path, seen: View) -> None:
    toward = torch.tensor([0.0, 0.0, -1.0])
    normals = torch.where(torch.isfinite(seen.normals), seen.normals, toward)
    disparity = blurred(seen.depth)
    sky = sky_mask(disparity, normals, 1 / FARTHEST)
    depth = 1 / (disparity + 1 / FARTHEST)
    pictures = {
        "image, its sky in red": torch.where(sky[..., None], torch.tensor([200, 40, 40]).byte(), seen.image),
        "cloud of all pixels": oblique(depth, seen, edge_threshold=0.0),
        "without sky and flying pixels": oblique(depth.masked_fill(sky, torch.inf), seen, edge_threshold=0.05),
    }
    figure = Figure(figsize=(15, 4.4), dpi=100)
    FigureCanvasAgg(figure)
    for axis, (title, picture) in zip(figure.subplots(1, 3), pictures.items(), strict=True):
        show(axis, picture)
        axis.set_title(title, fontsize=12)
    figure.tight_layout(pad=0.8)
    figure.savefig(path, pil_kwargs={"quality": 85})


def blurred(depth: Tensor) -> Tensor:
    """Depth (H, W), +Inf in the sky, as the disparity of a network: in [0, 1], its edges over a few pixels."""
    inverse = 1 / depth
    padded = F.pad(inverse[None, None], (BLUR // 2, (BLUR - 1) // 2) * 2, mode="replicate")
    smooth = F.avg_pool2d(padded, BLUR, stride=1)[0, 0]
    return smooth / smooth.max()


def oblique(depth: Tensor, seen: View, edge_threshold: float) -> Tensor:
    """The cloud from the side and above."""
    rows = organized_cloud(
        depth, seen.camera, seen.image, None,
        stride=1, min_depth=0.0, max_depth=math.inf, edge_threshold=edge_threshold,
    ).flatten(0, 1)  # fmt: skip
    keep = torch.isfinite(rows[:, 2])
    points, colors = rows[keep, :3].double(), seen.image.flatten(0, 1)[keep].long()
    middle = torch.tensor([0.0, 0.0, 8.0], dtype=torch.float64)
    back = torch.tensor([0.0, 0.0, ASIDE * 8.0], dtype=torch.float64)
    moved = (points - middle) @ view_rotation(YAW, PITCH).T + middle + back
    return splat(moved, colors, Camera.from_fov(WIDTH, HEIGHT, 75.0), radius=1)


if __name__ == "__main__":
    main()
