"""A rendered room's cloud from above: with a guessed shift, with the one from normals, and as it is, in gray in all.

python -m benchmarks.pictures_shift [OUTPUT]
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.geometry.seen import Seen, rendered, with_noise
from lotus2_ros.scale.scale import DEFAULT_SHIFT
from lotus2_ros.scale.shift import shift_from_normals

OUTPUT = "docs/images/shift.jpg"
ROOM = 12
# Of disparity's range; degrees of each normal.
NOISE = 0.01, 10.0
ACROSS, AHEAD = (-3.0, 1.5), (0.0, 5.5)  # meters shown


def main() -> int:
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
    figure.savefig(sys.argv[1] if len(sys.argv) > 1 else OUTPUT, pil_kwargs={"quality": 80})
    return 0


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
    sys.exit(main())
