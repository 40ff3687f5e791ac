"""The grid of patches in a model's normals, by the number of the sharpener's Euler steps.

    python -m benchmarks.patch_grid IMAGE ... [--model BUNDLE] [--steps 1,2,3,4]

For each image: `lotus2_ros.evaluation.spectrum.patch_grid` of the normals as the model gives them, before they are
enlarged to the image. 1: no grid shows. The last row is the geometric mean over the images.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor

from benchmarks.timing import machine, markdown
from lotus2_ros.evaluation.spectrum import patch_grid
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.inference.loading import load


@torch.inference_mode()
def grid_of(estimator: Estimator, geometry: Geometry) -> float:
    vectors: Tensor = 2 * estimator.model.decode(geometry.latents["normals"])[0] - 1
    return patch_grid(vectors, estimator.model.multiple)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--model", help="a bundle (default: the bundled model)")
    parser.add_argument("--steps", default="1,2,3,4", help="numbers of Euler steps, separated by commas")
    options = parser.parse_args()
    numbers = [int(number) for number in options.steps.split(",")]
    estimator = load(options.model, tasks=("normals",))
    print(machine(estimator.device))
    rows: list[list[object]] = []
    for image in options.images:
        coarse = estimator.predict(image)
        sharp = [estimator.sharpen(coarse, steps=number).result() for number in numbers]
        rows.append([image, *(grid_of(estimator, geometry) for geometry in (coarse, *sharp))])
    means = [math.exp(sum(map(math.log, column)) / len(rows)) for column in list(zip(*rows, strict=True))[1:]]
    print(markdown(("image", "core", *(f"{number} steps" for number in numbers)), [*rows, ["mean", *means]]))


if __name__ == "__main__":
    main()
