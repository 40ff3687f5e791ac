"""How steady the scale is: a standing camera with image noise, a moving one, with and without a reference."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.geometry.figure import Figure
from benchmarks.geometry.truth import known, prediction, sparse
from lotus2_ros import scenes
from lotus2_ros.config import ScaleConfig
from lotus2_ros.geometry.depth import disparity_to_depth
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.loading import load
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.reference import Reference, fit_to_reference
from lotus2_ros.scale.scale import RelativeGeometry, Scale

WIDTH, HEIGHT = 320, 240
PERIOD = 0.1  # seconds between frames
# A reference: points, their noise, and how many of them are wrong.
POINTS, NOISE, WRONG = 200, 0.01, 0.1
IMAGE_NOISE = 5.0  # of 255
EXACT_NOISE = 0.01  # of disparity
NEAR = 0.98  # quantile of inverse depth that has disparity 1
STANDING = (("room", 5), ("corridor", 7), ("desk", 8), ("street", 6))
MOVING = (5, 7, 9, 3, 0)
FRAMES = {"standing": 50, "moving": 60}
SETTLED = 15  # frames that a standing camera is given first
ENDS = 10  # frames at the start and the end of a moving camera's that drift is told from


@dataclass(frozen=True)
class Shot:
    """A frame as the model sees it, with the truth."""

    prediction: RelativeGeometry
    depth: Tensor


def figures(frames: Path | None, quick: bool) -> Iterator[Figure]:
    estimator = load(parameters={"model.threads": 1})
    standing = [
        list(stand(estimator, seed, kind, SETTLED + 2 if quick else FRAMES["standing"]))
        for kind, seed in (STANDING[:1] if quick else STANDING)
    ]
    for name, every in (("a reference each frame", 1), ("a reference each 5th frame", 5), ("no reference", 0)):
        yield from standing_figures(standing, name, every)
    seeds, count = (MOVING[:1], 4) if quick else (MOVING, FRAMES["moving"])
    views = [list(scenes.sequence(seed, count, WIDTH, HEIGHT)) for seed in seeds]
    exact = [list(exact_shots(sequence)) for sequence in views]
    bundled = [[shot(estimator, v.image, v, number) for number, v in enumerate(sequence)] for sequence in views]
    for name, every in (("a reference each frame", 1), ("a reference each 5th frame", 5)):
        yield from moving_figures(exact, f"true disparity, {name}", every, 1.0)
        yield from moving_figures(bundled, f"bundled model, {name}", every, None)


def standing_figures(sequences: Sequence[list[Shot]], name: str, every: int) -> Iterator[Figure]:
    spreads = []
    for shots in sequences:
        untracked, tracked = (spread(shots, follow(shots, every, tracking)) for tracking in (False, True))
        spreads.append((tracked[0], untracked[0], tracked[1], untracked[1]))
    scale, scale_alone, pixel, pixel_alone = (100 * statistics.median(values) for values in zip(*spreads, strict=True))
    ratio = statistics.median(tracked / alone for tracked, alone, *_ in spreads)
    against = f"{scale:.3f} % against {scale_alone:.3f} %"
    yield Figure("scale of a standing camera", f"{name}, tracked over untracked", ratio, "times", 0.25, against)
    yield Figure(
        "one pixel of a standing camera", f"{name}, deviation", pixel, "%", None, f"untracked {pixel_alone:.3f} %"
    )


def moving_figures(sequences: Sequence[list[Shot]], name: str, every: int, wanted: float | None) -> Iterator[Figure]:
    found = []
    for shots in sequences:
        (drift_alone, error_alone), (drift, error) = (
            drift_and_error(shots, follow(shots, every, tracking)) for tracking in (False, True)
        )
        found.append((drift, drift_alone, error, error_alone))
    drifts, drifts_alone = ([100 * drift for drift in values] for values in list(zip(*found, strict=True))[:2])
    worst, worst_alone = max(drifts), max(drifts_alone)
    note = f"at most {worst:.2f}; untracked {statistics.median(drifts_alone):.2f}, at most {worst_alone:.2f} %"
    yield Figure("drift of a moving camera", name, statistics.median(drifts), "%", wanted, note)
    lag = statistics.median(error / alone for _, _, error, alone in found)
    errors = ", ".join(f"{error:.3f} against {alone:.3f}" for _, _, error, alone in found)
    yield Figure("AbsRel of a moving camera", f"{name}, tracked over untracked", lag, "times", 1.05, errors)


def stand(estimator: Estimator, seed: int, kind: str, count: int) -> Iterator[Shot]:
    """One view again and again, each time with new noise in the image."""
    view = scenes.view(seed, WIDTH, HEIGHT, kind)
    generator = torch.Generator().manual_seed(seed)
    for number in range(count):
        noise = IMAGE_NOISE * torch.randn(view.image.shape, generator=generator)
        image = (view.image + noise).round().clamp(0, 255).to(torch.uint8)
        yield shot(estimator, image, view, number)


def exact_shots(sequence: Sequence[scenes.View]) -> Iterator[Shot]:
    """Truth as a model would give it: with noise, and a scale and a shift that are anew each frame's own."""
    generator = torch.Generator().manual_seed(0)
    for number, view in enumerate(sequence):
        inverse = 1 / view.depth
        scale, shift = (torch.tensor([0.8, 0.1]) + 0.03 * torch.randn(2, generator=generator)).tolist()
        noise = EXACT_NOISE * torch.randn(inverse.shape, generator=generator)
        # By a quantile, as the model is trained, or one near thing would drown the rest in noise.
        disparity = scale * inverse / inverse.quantile(NEAR) + shift + noise
        yield Shot(RelativeGeometry(disparity, view.image, None, view.camera, PERIOD * number), known(view.depth))


def shot(estimator: Estimator, image: Tensor, view: scenes.View, number: int) -> Shot:
    return Shot(prediction(estimator, image, view.camera, PERIOD * number), known(view.depth))


def follow(shots: Sequence[Shot], every: int, tracking: bool) -> list[Scale]:
    """The scales of a sequence; ``every``: frames from one reference to the next, 0: none."""
    scale_filter, config = ScaleFilter(), ScaleConfig(tracking=tracking)
    generator = torch.Generator().manual_seed(0)
    scales = []
    for number, item in enumerate(shots):
        has_reference = every > 0 and number % every == 0
        reference = Reference(measure(item.depth, generator), PERIOD * number) if has_reference else None
        scales.append(scale_filter.align(item.prediction, reference, config))
    return scales


def measure(depth: Tensor, generator: torch.Generator, points: int = POINTS) -> Tensor:
    """A few points of the truth, with noise, some of them wrong; the rest NaN."""
    places = torch.nonzero(torch.isfinite(depth).flatten())[:, 0]
    chosen = places[torch.randperm(len(places), generator=generator)[:points]]
    values = depth.flatten()[chosen] * (1 + NOISE * torch.randn(len(chosen), generator=generator))
    wrong = torch.rand(len(chosen), generator=generator) < WRONG
    values = torch.where(wrong, values * (0.3 + 2 * torch.rand(len(chosen), generator=generator)), values)
    return sparse(chosen, values, depth.shape)


def depths(shots: Sequence[Shot], scales: Sequence[Scale]) -> Tensor:
    """(frames, pixels), of the pixels that truth is known of in all frames."""
    seen = torch.stack([torch.isfinite(item.depth) for item in shots]).all(dim=0)
    return torch.stack(
        [
            scale.depth_of(s.prediction.disparity, s.prediction.image)[seen]
            for s, scale in zip(shots, scales, strict=True)
        ]
    )


def spread(shots: Sequence[Shot], scales: Sequence[Scale]) -> tuple[float, float]:
    """Relative standard deviation over time of the median depth, and the median one of a pixel's."""
    logarithm = depths(shots, scales)[SETTLED:].log()
    return float(logarithm.nanmedian(dim=1).values.std()), float(logarithm.std(dim=0).nanmedian())


def drift_and_error(shots: Sequence[Shot], scales: Sequence[Scale]) -> tuple[float, float]:
    """How much the scale changes from the first frames to the last, against fits to all of the truth; mean AbsRel."""
    ratios, errors = [], []
    for item, scale in zip(shots, scales, strict=True):
        disparity, seen = item.prediction.disparity, torch.isfinite(item.depth)
        depth = scale.depth_of(disparity, item.prediction.image)
        best = disparity_to_depth(disparity, *fit_to_reference(disparity, Reference(item.depth))[:2])
        ratios.append(float((depth / best)[seen].nanmedian().log()))
        errors.append(float((depth / item.depth - 1).abs()[seen].nanmean()))
    drift = statistics.mean(ratios[-ENDS:]) - statistics.mean(ratios[:ENDS])
    return abs(drift), statistics.mean(errors)
