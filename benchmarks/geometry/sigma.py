"""How true the standard deviation of depth is: how often 90 % intervals hold, and whether it finds the large errors."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from time import thread_time

import torch
from torch import Tensor

from benchmarks.geometry.field import HEIGHT, INDOORS, OUTDOORS, SEED, WIDTH, WRONG
from benchmarks.geometry.figure import Figure
from benchmarks.geometry.truth import camera_of, draw, is_dense, known, prediction, sparse
from lotus2_ros import scenes
from lotus2_ros.config import ScaleConfig
from lotus2_ros.data.sample import Sample
from lotus2_ros.evaluation.frames import read_frames
from lotus2_ros.evaluation.uncertainty import sparsification
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.loading import load
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.scale import RelativeGeometry, Scale
from lotus2_ros.scale.spread_calibration import INTERVAL

PIXELS = 20000  # that the curves are made of
OFF, AUSE = 0.05, 0.5  # most that is wanted: of a share, and of random order
DRAWS = 3
REPEATS = 20  # of what is timed


@dataclass(frozen=True)
class Scene:
    """A frame as the model sees it, with the truth; NaN is unknown."""

    name: str
    prediction: RelativeGeometry
    uncertainty: Tensor | None  # of the disparity, by the model
    truth: Tensor


@dataclass(frozen=True)
class Quality:
    """Of one frame's standard deviations, at all measured pixels but the points."""

    covered: float  # share of the pixels within the 90 % interval
    ause: float  # for relative errors, over that of random order
    in_meters: float  # the same for errors in meters


def figures(frames: Path | None, quick: bool) -> Iterator[Figure]:
    sets = scenes_by_set(frames, scenes.KINDS[:1] if quick else scenes.KINDS)
    for name, found in sets.items():
        for is_local in (False, True):
            for wrong in (0.0, WRONG):
                yield from _set_figures(name, found, is_local, wrong, 1 if quick else DRAWS)
    yield from _time_figures(sets["rendered"][0])


def scenes_by_set(frames: Path | None, kinds: tuple[str, ...] = scenes.KINDS) -> dict[str, list[Scene]]:
    """Rendered scenes of these kinds, and the recorded frames in a folder."""
    estimator = load(parameters={"model.threads": 1})
    sets = {"rendered": [_rendered(estimator, kind) for kind in kinds]}
    if frames is not None:
        sets["recorded"] = [_recorded(estimator, frames, frame) for frame in read_frames(frames)]
    return sets


def _set_figures(name: str, found: list[Scene], is_local: bool, wrong: float, draws: int) -> Iterator[Figure]:
    case = f"{name}, {'local field' if is_local else 'line'}" + (f", {wrong:.0%} wrong" if wrong else "")
    measured = [_quality(scene, is_local, wrong, draws) for scene in found]
    qualities = [quality for quality in measured if quality is not None]
    shares = [quality.covered for quality in qualities]
    beside = f"{min(shares):.3f} to {max(shares):.3f}, mean {statistics.mean(shares):.3f}, {len(shares)} frames"
    worst = max(abs(share - 0.9) for share in shares)
    yield Figure(
        "sigma: share of pixels in their 90 % interval, off 0.9", case, worst, "", None if wrong else OFF, beside
    )
    ratios, meters = zip(*((quality.ause, quality.in_meters) for quality in qualities), strict=True)
    beside = f"worst {max(ratios):.2f}; of errors in meters {statistics.mean(meters):.2f}, worst {max(meters):.2f}"
    yield Figure(
        "sigma: AUSE of relative errors over random order's", case, statistics.mean(ratios), "times", AUSE, beside
    )


def _quality(scene: Scene, is_local: bool, wrong: float, draws: int) -> Quality | None:
    """Mean over some draws of the points; None if all fits are refused."""
    drawn = [_quality_of_draw(scene, is_local, wrong, seed) for seed in range(draws)]
    found = [astuple(quality) for quality in drawn if quality is not None]
    return Quality(*map(statistics.mean, zip(*found, strict=True))) if found else None


def _quality_of_draw(scene: Scene, is_local: bool, wrong: float, seed: int) -> Quality | None:
    """None if the fit is refused."""
    found = errors_and_sigma(scene, 0, is_local, wrong, seed)
    if found is None:
        return None
    truth, depth, sigma = found
    error = (truth - depth).abs()
    covered = float((error <= INTERVAL * sigma).float().mean())
    some = slice(None, None, 1 + len(error) // PIXELS)
    relative = sparsification((error / truth)[some], (sigma / depth)[some])
    absolute = sparsification(error[some], sigma[some])
    return Quality(covered, relative.ause / relative.random, absolute.ause / absolute.random)


def errors_and_sigma(scene: Scene, points: int, is_local: bool, wrong: float, seed: int) -> tuple[Tensor, ...] | None:
    """True depth, depth and its deviation at all measured pixels but the points (N,); None if the fit is refused.

    ``points``: 0: by kind of frame.
    """
    points = points or (INDOORS if is_dense(scene.truth) else OUTDOORS)
    chosen, values = draw(scene.truth, points, wrong, seed)
    scale = _align(scene, chosen, values, is_local, True)
    if scale.spread is None:
        return None
    depth = scale.depth_of(scene.prediction.disparity, scene.prediction.image)
    sigma = scale.spread.sigma(depth, scene.uncertainty)
    measured = (torch.isfinite(scene.truth) & torch.isfinite(depth)).flatten().scatter(0, chosen, False)
    return tuple(each.flatten()[measured] for each in (scene.truth, depth, sigma))


def _time_figures(scene: Scene) -> Iterator[Figure]:
    """CPU time of one thread, so that a busy machine counts little."""
    chosen, values = draw(scene.truth, INDOORS, 0.0, 0)
    for is_local in (False, True):
        without, with_it = ([], [])
        for _ in range(REPEATS):
            for times, wanted in ((without, False), (with_it, True)):
                started = thread_time()
                _align(scene, chosen, values, is_local, wanted)
                times.append(thread_time() - started)
        more = 1e3 * (statistics.median(with_it) - statistics.median(without))
        case = "of a reference, with the local field" if is_local else "of a reference, with the line alone"
        yield Figure("sigma: time, 640x480", case, more, "ms", None)
    scale = _align(scene, chosen, values, True, True)
    depth, times = scale.depth_of(scene.prediction.disparity, scene.prediction.image), []
    assert scale.spread is not None  # rendered scenes determine a fit
    for _ in range(REPEATS):
        started = thread_time()
        scale.spread.sigma(depth)
        times.append(thread_time() - started)
    yield Figure("sigma: time, 640x480", "of the image", 1e3 * statistics.median(times), "ms", None)


def _align(scene: Scene, chosen: Tensor, values: Tensor, is_local: bool, with_sigma: bool) -> Scale:
    reference = Reference(sparse(chosen, values, scene.truth.shape))
    return ScaleFilter().align(scene.prediction, reference, ScaleConfig(local_field=is_local), with_sigma=with_sigma)


def _rendered(estimator: Estimator, kind: str) -> Scene:
    view = scenes.view(SEED, WIDTH, HEIGHT, kind)
    return _scene(estimator, kind, view.image, view.camera, view.depth)


def _recorded(estimator: Estimator, frames: Path, frame: Sample) -> Scene:
    return _scene(estimator, frame.name, frame.image, camera_of(frames, frame), frame.depth)


def _scene(estimator: Estimator, name: str, image: Tensor, camera: Camera, depth: Tensor) -> Scene:
    uncertainty = estimator.predict(image, tasks=("depth",)).uncertainty
    return Scene(name, prediction(estimator, image, camera), uncertainty, known(depth))
