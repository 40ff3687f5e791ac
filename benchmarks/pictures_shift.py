"""docs/images/shift.jpg: a rendered room's cloud from above, by a guessed shift and by the one from normals.

    python -m benchmarks.pictures_shift [--output docs/images/shift.jpg]

The room as it is stands beside them, and in gray behind each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.geometry.seen import Seen, rendered, with_noise
from lotus2_ros.scale.scale import DEFAULT_SHIFT
from lotus2_ros.scale.shift import shift_from_normals

ROOM = 12
# Of disparity's range; degrees of each normal.
NOISE = 0.01, 10.0
ACROSS, AHEAD = (-3.0, 1.5), (0.0, 5.5)  # meters shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/images/shift.jpg"))
    args = parser.parse_args()
    exact = list(rendered({"room": ROOM + 1}, quick=False))[ROOM]
    seen = with_noise(exact, 0, *NOISE)
    shift, stats = shift_from_normals(seen.disparity, seen.normals, seen.camera.K, seen.valid)
    stats.check()
    truth = exact.camera.unproject(exact.depth)
    clouds = {
        f"guessed shift: {DEFAULT_SHIFT:g}": _cloud(seen, DEFAULT_SHIFT),
        f"from normals: {float(shift):.2f}": _cloud(seen, float(shift)),
        f"as rendered: {exact.shift:.2f}": truth,
    }
    figure = Figure(figsize=(12, 5), dpi=100)
    FigureCanvasAgg(figure)
    for axis, (title, points) in zip(figure.subplots(1, 3, sharex=True, sharey=True), clouds.items(), strict=True):
        axis.set_title(title)
        _draw(axis, truth, exact, plain=True)
        _draw(axis, points, exact)
        axis.set_xlim(*ACROSS)
        axis.set_ylim(*AHEAD)
    figure.tight_layout()
    figure.savefig(args.output, pil_kwargs={"quality": 80})


def _cloud(seen: Seen, shift: float) -> Tensor:
    """Points (H, W, 3); the factor is that of the depth as rendered."""
    depth = 1 / (seen.disparity + shift).clamp_min(1e-3)
    return seen.camera.unproject(depth * (seen.depth / depth).median())


def _draw(axis: Axes, points: Tensor, exact: Seen, plain: bool = False) -> None:
    """Upright surfaces from above."""
    assert exact.up is not None  # rendered views have it
    up = exact.up.float()
    ahead = F.normalize(torch.tensor([0.0, 0, 1]) - up[2] * up, dim=0)
    right = torch.linalg.cross(ahead, up)
    drawn = (exact.normals @ up).abs() < 0.5
    colors = "lightgray" if plain else (exact.image[drawn] / 255).numpy()
    axis.scatter((points @ right)[drawn], (points @ ahead)[drawn], s=9 if plain else 0.8, c=colors, linewidths=0)
    axis.set_aspect("equal")
    axis.set_xlabel("right, m")
    axis.set_ylabel("ahead, m")


if __name__ == "__main__":
    main()
