"""What the dial `model.process_resolution` trades: error against time, on scenes with exact depth and normals.

    python -m benchmarks.resolution [--model BUNDLE] [--resolutions 384,512,640,768,1024] [--views 8]

AbsRel of the core predictor's disparity (fitted with scale and shift) and the mean angle of its normals over held-out
views of each kind of scene, 4:3, rendered at the largest resolution; the time from a uint8 image to both, median.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from benchmarks.timing import machine, markdown
from lotus2_ros import scenes
from lotus2_ros.data.sample import Sample
from lotus2_ros.evaluation.measure import measure
from lotus2_ros.evaluation.summary import average
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.loading import load
from lotus2_ros.scenes import View

WARM_UP = 3


def row(estimator: Estimator, views: list[View], resolution: int) -> tuple[object, ...]:
    """Resolution, AbsRel, degrees, milliseconds."""
    estimator.config = estimator.config.updated({"model.process_resolution": resolution})
    records, times = [], []
    for view in views[:WARM_UP]:
        estimator.predict(view.image)
    for view in views:
        records.append(measure(estimator, Sample("", view.image, view.depth, view.normals), 0))
        start = time.perf_counter()
        geometry = estimator.predict(view.image)
        _ = [result.cpu() for result in (geometry.depth, geometry.normals) if result is not None]
        times.append(1e3 * (time.perf_counter() - start))
    means = average(records)
    return (
        str(resolution),
        f"{means['core/depth/abs_rel']:.3f}",
        f"{means['core/normals']:.1f}" if "core/normals" in means else None,
        statistics.median(times),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="bundle (the bundled model)")
    parser.add_argument("--resolutions", default="384,512,640,768,1024", help="separated by commas")
    parser.add_argument("--views", type=int, default=8, help="of each kind of scene")
    options = parser.parse_args()
    resolutions = [int(text) for text in options.resolutions.split(",")]
    estimator = load(options.model or None)
    width = max(resolutions)
    seeds = range(scenes.HELD_OUT_SEEDS, scenes.HELD_OUT_SEEDS + options.views)
    views = [scenes.view(seed, width, width * 3 // 4, kind) for kind in scenes.KINDS for seed in seeds]
    print(
        f"{estimator.model.name}, {machine(estimator.device)}, {torch.get_num_threads()} threads, {len(views)} views\n"
    )
    header = ("longer side, px", "AbsRel", "normals, degrees", "ms")
    print(markdown(header, [row(estimator, views, resolution) for resolution in resolutions]))


if __name__ == "__main__":
    main()
