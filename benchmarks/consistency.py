"""Whether a model tells where it errs: by its uncertainty head, or by contradicting itself.

    python -m benchmarks.consistency [--model BUNDLE] [--views 20] [--frames FOLDER]

It is shown each held-out view again, mirrored (what `model.mirror` does) or moved by half a token, and where the second
disparity differs from the first it is called uncertain. The table has the AUSE of that order of the pixels, by the
relative error of the fitted depth, beside that of a random order, which any useful uncertainty is below; and that of
the farthest pixels first, for which nothing needs to be known of them. The last column is the AUSE of the order by the
deviation of disparity itself, which is not that of relative depth.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.timing import machine, markdown
from lotus2_ros import scenes
from lotus2_ros.data.sample import Sample
from lotus2_ros.evaluation.frames import read_frames
from lotus2_ros.evaluation.metrics import fit_depth
from lotus2_ros.evaluation.uncertainty import depth_sparsification
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


def own(estimator: Estimator, image: Tensor) -> Tensor:
    found = estimator.predict(image, tasks=("depth",)).uncertainty
    assert found is not None
    return found.cpu()


def farthest(estimator: Estimator, image: Tensor) -> Tensor:
    """The same deviation of disparity everywhere."""
    return torch.ones(image.shape[:2])


def held_out(views: int, frames: Path | None) -> dict[str, list[Sample]]:
    """Views of each kind of scene, and each recorded frame."""
    seeds = range(scenes.HELD_OUT_SEEDS, scenes.HELD_OUT_SEEDS + views)
    rendered = {kind: [scenes.view(seed, WIDTH, HEIGHT, kind) for seed in seeds] for kind in scenes.KINDS}
    found = {kind: [Sample(kind, view.image, view.depth) for view in seen] for kind, seen in rendered.items()}
    return found | ({frame.name: [frame] for frame in read_frames(frames)} if frames else {})


def rows(estimator: Estimator, name: str, doubt: Doubt, sets: Mapping[str, list[Sample]]) -> list[tuple[str, ...]]:
    """By kind of scene or frame and over all of either: AUSE, that of a random order, and by disparity itself."""
    found = {kind: [_quality(estimator, doubt, sample) for sample in samples] for kind, samples in sets.items()}
    found["all scenes"] = [each for kind in scenes.KINDS for each in found[kind]]
    found["all frames"] = [each for kind in sets.keys() - set(scenes.KINDS) for each in found[kind]]
    means = {kind: map(statistics.fmean, zip(*each, strict=True)) for kind, each in found.items() if each}
    return [(name, kind, *(f"{value:.3f}" for value in values)) for kind, values in means.items()]


def _quality(estimator: Estimator, doubt: Doubt, sample: Sample) -> tuple[float, ...]:
    assert sample.depth is not None
    depth = fit_depth(disparity(estimator, sample.image), sample.depth)
    deviation = doubt(estimator, sample.image)
    worth = depth_sparsification(depth, sample.depth, deviation)
    as_it_is = depth_sparsification(depth, sample.depth, deviation / depth)
    return worth.ause, worth.random, as_it_is.ause


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="bundle (the bundled model)")
    parser.add_argument("--views", type=int, default=20, help="of each kind of scene")
    parser.add_argument("--frames", type=Path, help="folder of recorded frames")
    options = parser.parse_args()
    estimator = load(options.model or None)
    print(f"{estimator.model.name}, {machine(estimator.device)}, {options.views} views of each kind\n")
    header = ("uncertainty", "of", "AUSE", "of a random order", "by disparity itself")
    ways: dict[str, Doubt] = {"mirrored": mirrored, "moved": moved, "farthest first": farthest}
    if estimator.model.has_uncertainty:
        ways["its own"] = own
    sets = held_out(options.views, options.frames)
    found = [row for name, doubt in ways.items() for row in rows(estimator, name, doubt, sets)]
    print(markdown(header, found))


if __name__ == "__main__":
    main()
