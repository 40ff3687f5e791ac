"""Whether a model that gives one answer tells where it errs by contradicting itself.

    python -m benchmarks.consistency [--model BUNDLE] [--views 20]

It is shown each held-out view again, mirrored (what `model.mirror` does) or moved by half a token, and where the second
disparity differs from the first it is called uncertain. AUSE of that order of the pixels, by the relative error of the
fitted depth, beside that of a random order, which any useful uncertainty is below.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.timing import machine, markdown
from lotus2_ros import scenes
from lotus2_ros.evaluation.metrics import INDOORS_AND_STREETS, fit_depth, in_range
from lotus2_ros.evaluation.uncertainty import sparsification
from lotus2_ros.inference.annotations import deviation
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.loading import load

WIDTH, HEIGHT = 320, 240

Doubt = Callable[[Estimator, Tensor], Tensor]  # the uncertainty (H, W) of what is said of an image (H, W, 3)


def disparity(estimator: Estimator, image: Tensor) -> Tensor:
    found = estimator.predict(image, tasks=("depth",)).disparity
    assert found is not None
    return found.cpu()


def mirrored(estimator: Estimator, image: Tensor) -> Tensor:
    """As it is published."""
    twice = Estimator(estimator.model, estimator.config.updated({"model.mirror": True}))
    found = twice.predict(image, tasks=("depth",)).uncertainty
    assert found is not None
    return found.cpu()


def moved(estimator: Estimator, image: Tensor) -> Tensor:
    first = disparity(estimator, image)
    return deviation(torch.stack((first, seen_moved(estimator, image))), first)


def seen_moved(estimator: Estimator, image: Tensor) -> Tensor:
    """Half a token to the right and down; the border is repeated."""
    distance = estimator.model.multiple * max(image.shape[:2]) // estimator.process_resolution // 2
    rows, columns = ((torch.arange(n) - distance).clamp_min(0) for n in image.shape[:2])
    seen = disparity(estimator, image[rows][:, columns])
    rows, columns = ((torch.arange(n) + distance).clamp_max(n - 1) for n in image.shape[:2])
    return seen[rows][:, columns]


def rows(estimator: Estimator, name: str, doubt: Doubt, views: int) -> list[tuple[str, ...]]:
    """By kind of scene and over all: AUSE, and that of a random order."""
    found: dict[str, list[tuple[float, ...]]] = {kind: [] for kind in scenes.KINDS}
    for kind, seed in ((kind, scenes.HELD_OUT_SEEDS + index) for kind in scenes.KINDS for index in range(views)):
        view = scenes.view(seed, WIDTH, HEIGHT, kind)
        first = disparity(estimator, view.image)
        known = in_range(view.depth, INDOORS_AND_STREETS)
        error = (fit_depth(first, view.depth)[known] / view.depth[known] - 1).abs()
        worth = sparsification(error, doubt(estimator, view.image)[known])
        found[kind].append((worth.ause, worth.random))
    found["all"] = [each for kind in scenes.KINDS for each in found[kind]]
    means = {kind: map(statistics.fmean, zip(*each, strict=True)) for kind, each in found.items()}
    return [(name, kind, *(f"{value:.3f}" for value in values)) for kind, values in means.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="bundle (the bundled model)")
    parser.add_argument("--views", type=int, default=20, help="of each kind of scene")
    options = parser.parse_args()
    estimator = load(options.model or None)
    print(f"{estimator.model.name}, {machine(estimator.device)}, {options.views} views of each kind\n")
    header = ("seen again", "scenes", "AUSE", "of a random order")
    ways: dict[str, Doubt] = {"mirrored": mirrored, "moved": moved}
    found = [row for name, doubt in ways.items() for row in rows(estimator, name, doubt, options.views)]
    print(markdown(header, found))


if __name__ == "__main__":
    main()
