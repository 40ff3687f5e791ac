"""docs/images/field.jpg: two rendered scenes by one scale and shift, and with the local field: errors and clouds.

Blue is too near, red too far.

python -m benchmarks.pictures_field [--output docs/images/field.jpg]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.geometry.field import INDOORS, reconstructed
from benchmarks.geometry.truth import draw, known, prediction
from lotus2_ros.config import CloudConfig
from lotus2_ros.evaluation.metrics import depth_error
from lotus2_ros.geometry.cloud import flying_pixels
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.loading import load
from lotus2_ros.scenes import View, view
from lotus2_ros.view.preview import colored, fitting_camera, show, splat, view_rotation

KINDS = "corridor", "desk"
SEED, WIDTH, HEIGHT = 201, 640, 480  # held out
WORST = 0.3  # error of the strongest color, share of depth
YAW, PITCH = 25.0, 18.0  # degrees, of the second camera
EDGE = CloudConfig().edge_threshold


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/images/field.jpg"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    estimator = load(parameters={"model.threads": 1})
    figure = Figure(figsize=(12, 6.2 * len(KINDS)), dpi=70)
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 * len(KINDS), 3)
    for number, kind in enumerate(KINDS):
        draw_scene(axes[2 * number : 2 * number + 2], estimator, view(SEED, WIDTH, HEIGHT, kind))
    figure.tight_layout(pad=0.6)
    figure.savefig(args.output, pil_kwargs={"quality": 80})


def draw_scene(axes: np.ndarray, estimator: Estimator, seen: View) -> None:
    """On two rows of three axes."""
    truth = known(seen.depth)
    places, values = draw(truth, INDOORS, 0.0, 0)
    depths = reconstructed(prediction(estimator, seen.image, seen.camera), truth, places, values)
    assert depths is not None  # these scenes determine a fit
    columns = {"as rendered": truth, "by scale and shift": depths["line"], "with the local field": depths["field"]}
    for (title, depth), (above, below) in zip(columns.items(), axes.T, strict=True):
        if depth is truth:
            show(above, seen.image)
            above.plot(places % WIDTH, places // WIDTH, "o", color="red", markersize=1.5)
            above.set_title(f"image and the {INDOORS} points of the reference", fontsize=11)
        else:
            at = torch.isfinite(truth)
            show(above, colored(depth / truth - 1, -WORST, WORST, "seismic"))
            above.set_title(f"error {title}: AbsRel {depth_error(depth[at], truth[at]).abs_rel:.3f}", fontsize=11)
        show(below, cloud(depth, truth, seen))
        below.set_title(f"cloud {title}", fontsize=11)


def cloud(depth: Tensor, truth: Tensor, seen: View) -> Tensor:
    """From the side and above, by the same second camera for each depth."""
    middle = torch.tensor([0.0, 0.0, float(truth.nanmedian())], dtype=torch.float64)

    def turned(depth: Tensor) -> tuple[Tensor, Tensor]:
        keep = torch.isfinite(depth) & ~flying_pixels(depth, EDGE)
        points = seen.camera.unproject(depth)[keep].double()
        return (points - middle) @ view_rotation(YAW, PITCH).T + middle, seen.image[keep].long()

    return splat(*turned(depth), fitting_camera(turned(truth)[0], WIDTH, HEIGHT))


if __name__ == "__main__":
    main()
