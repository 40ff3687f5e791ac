"""A rendered room's cloud from above and from the side: with a guessed shift, with the one from normals, and as it
is, which is grey in all of them.

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
    figure = Figure(figsize=(10, 7.2), dpi=100)
    FigureCanvasAgg(figure)
    for axes, (title, points) in zip(figure.subplots(2, 3, sharex="row", sharey="row").T, clouds.items(), strict=True):
        axes[0].set_title(title)
        for axis, from_above in zip(axes, (True, False), strict=True):
            _draw(axis, truth, exact, from_above, plain=True)
            _draw(axis, points, exact, from_above)
    figure.tight_layout()
    figure.savefig(sys.argv[1] if len(sys.argv) > 1 else OUTPUT, pil_kwargs={"quality": 80})
    return 0


def _cloud(seen: Seen, shift: float) -> Tensor:
    """Points (H, W, 3); the factor is that of the depth as rendered."""
    depth = 1 / (seen.disparity + shift).clamp_min(1e-3)
    return seen.camera.unproject(depth * (seen.depth / depth).median())


def _draw(axis: Axes, points: Tensor, exact: Seen, from_above: bool, plain: bool = False) -> None:
    """What stands upright from above, and what does not face sideways from the right side."""
    assert exact.up is not None  # rendered views have it
    up = exact.up.float()
    ahead = F.normalize(torch.tensor([0.0, 0, 1]) - up[2] * up, dim=0)
    right = torch.linalg.cross(ahead, up)
    drawn = (exact.normals @ (up if from_above else right)).abs() < 0.5
    across, along = (right, ahead) if from_above else (ahead, up)
    colors = "lightgrey" if plain else (exact.image[drawn] / 255).numpy()
    axis.scatter((points @ across)[drawn], (points @ along)[drawn], s=4 if plain else 0.3, c=colors, linewidths=0)
    axis.set_aspect("equal")
    axis.set_xlabel("right, m" if from_above else "ahead, m")
    axis.set_ylabel("ahead, m" if from_above else "up, m")


if __name__ == "__main__":
    sys.exit(main())
