"""The measurements of one sample, as a record.

A record is a tree of numbers by name, such as `core/depth/abs_rel`, so that it can be stored as one line of JSON and
averaged without knowing its content. Quantities that cannot be measured are missing from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lotus2_ros.data.benchmarks import Benchmark
from lotus2_ros.data.sample import Sample
from lotus2_ros.evaluation.angles import agreement, angular_errors
from lotus2_ros.evaluation.boundary import boundary_score
from lotus2_ros.evaluation.flicker import FlickerFrame, flicker
from lotus2_ros.evaluation.metrics import (
    INDOORS_AND_STREETS,
    affine_invariant_depth_error,
    depth_error,
    fit_depth,
    image_row,
    in_range,
)
from lotus2_ros.evaluation.spectrum import high_frequency_ratio, power_spectrum, radial_average
from lotus2_ros.evaluation.uncertainty import depth_sparsification
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.depth import Space
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.scenes import View

Record = dict[str, Any]


def predict_stages(
    estimator: Estimator, image: Tensor, steps: int | None, tasks: Sequence[str] | None = None
) -> dict[str, Geometry]:
    """Geometries of `image` by stage: `core`, and `sharp` after `steps` (None: the model's own; 0: not at all)."""
    coarse = estimator.predict(image, tasks=tasks)
    if steps == 0 or not any(map(estimator.refines, coarse.latents)):
        return {"core": coarse}
    return {"core": coarse, "sharp": estimator.sharpen(coarse, steps).result()}


def measure(estimator: Estimator, sample: Sample, steps: int | None) -> Record:
    """Errors of depth and normals, those of the image-row baseline, and the agreement of depth with normals."""
    record: Record = {}
    for stage, geometry in predict_stages(estimator, sample.image, steps).items():
        found = record[stage] = {}
        if sample.depth is not None and geometry.disparity is not None:
            affine, space = _affine(geometry)
            depth = fit_depth(affine, sample.depth, space=space)
            known = in_range(sample.depth, INDOORS_AND_STREETS)
            found["depth"] = asdict(depth_error(depth[known], sample.depth[known]))
            if geometry.uncertainty is not None:
                found["uncertainty"] = asdict(depth_sparsification(depth, sample.depth, geometry.uncertainty.cpu()))
            if geometry.normals is not None and sample.K is not None:
                camera = Camera(depth.shape[1], depth.shape[0], sample.K)
                found["agreement"] = float(
                    agreement(torch.where(known, depth, torch.nan), geometry.normals.cpu(), camera).mean()
                )
        if sample.normals is not None and geometry.normals is not None:
            found["normals"] = float(angular_errors(geometry.normals.cpu(), sample.normals).mean())
    if sample.depth is not None:
        row = image_row(*sample.depth.shape)
        record["row"] = {"depth": asdict(affine_invariant_depth_error(row, sample.depth))}
    return _known(record)


def measure_detail(estimator: Estimator, sample: Sample, steps: int | None) -> Record:
    """Edges and spectrum of the fitted disparity.

    The sample must have the model's own resolution and depth everywhere.
    """
    assert sample.depth is not None  # all scenes have depth
    farthest = INDOORS_AND_STREETS[1]
    truth = sample.depth.double().clamp(max=farthest)
    true_power = power_spectrum(1 / truth)
    record: Record = {"truth": {"spectrum": _log_power(true_power)}}
    for stage, geometry in predict_stages(estimator, sample.image, steps, ("depth",)).items():
        affine, space = _affine(geometry)
        depth = fit_depth(affine, sample.depth, space=space)
        power = power_spectrum(1 / depth)
        record[stage] = {
            "boundary": asdict(boundary_score(depth, truth)),
            "log_high_frequency_ratio": math.log(max(high_frequency_ratio(power, true_power), 1e-12)),
            "spectrum": _log_power(power),
        }
    return _known(record)


def measure_sequence(estimator: Estimator, views: Sequence[View], steps: int | None) -> Record:
    """Flicker, with one scale and shift for the whole sequence, and with one per frame."""
    predicted = [predict_stages(estimator, view.image, steps, ("depth",)) for view in views]
    record: Record = {}
    for stage in predicted[0]:
        affine, (space, *_) = zip(*[_affine(geometries[stage]) for geometries in predicted], strict=True)
        truths = [view.depth for view in views]
        together = fit_depth(torch.stack(affine), torch.stack(truths), space=space).unbind()
        alone = [fit_depth(one, truth, space=space) for one, truth in zip(affine, truths, strict=True)]
        record[stage] = {"flicker": _flicker(together, views), "flicker_fitted": _flicker(alone, views)}
    return _known(record)


def measure_benchmark(
    estimator: Estimator, sample: Sample, steps: int | None, benchmark: Benchmark
) -> tuple[Record, dict[str, Tensor]]:
    """By the data set's protocol; for normals also the angles (N,) by stage, which are pooled over the data set."""
    record: Record = {}
    angles: dict[str, Tensor] = {}
    size = sample.image.shape[:2]
    for stage, geometry in predict_stages(
        estimator, _processed(sample.image, benchmark), steps, (benchmark.task,)
    ).items():
        if benchmark.task == "normals":
            assert sample.normals is not None and geometry.normals is not None
            normals = F.normalize(_resized(geometry.normals.cpu().permute(2, 0, 1), size).permute(1, 2, 0), dim=-1)
            angles[stage] = angular_errors(normals, sample.normals)
            record[stage] = {"normals": float(angles[stage].mean())}
        else:
            assert sample.depth is not None
            affine, space = _affine(geometry)
            limits = benchmark.depth_range or INDOORS_AND_STREETS
            resized = _resized(affine[None], size)[0]
            error = affine_invariant_depth_error(resized, sample.depth, limits, benchmark.fit_side, space)
            record[stage] = {"depth": asdict(error)}
    return _known(record), angles


def _processed(image: Tensor, benchmark: Benchmark) -> Tensor:
    """The image at the resolution that the protocol gives to the model."""
    if benchmark.resolution is None:
        return image
    scale = benchmark.resolution / max(image.shape[:2])
    size = [round(side * scale) for side in image.shape[:2]]
    return _resized(image.permute(2, 0, 1).float(), size).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous()


def _resized(pictures: Tensor, size: Sequence[int]) -> Tensor:
    """(C, H, W) to (C, *size)."""
    if tuple(pictures.shape[1:]) == tuple(size):
        return pictures
    return F.interpolate(pictures[None], tuple(size), mode="bilinear", align_corners=False, antialias=True)[0]


def _flicker(depths: Sequence[Tensor], views: Sequence[View]) -> float:
    poses = [(torch.from_numpy(view.pose.rotation()), torch.from_numpy(view.pose.position)) for view in views]
    return flicker(
        [
            FlickerFrame(depth, view.depth, view.camera, *pose)
            for depth, view, pose in zip(depths, views, poses, strict=True)
        ]
    )


def _affine(geometry: Geometry) -> tuple[Tensor, Space]:
    """The model's own output for depth, up to scale and shift, and the space to fit it in."""
    if geometry.annotations.affine is None:
        raise ValueError("expected a model with the task depth, got one without")
    affine, space = geometry.annotations.affine
    return affine.cpu(), space


def _log_power(power: Tensor) -> list[float]:
    return radial_average(power).clamp_min(1e-12).log10().tolist()


def _known(record: Record) -> Record:
    """Without NaN, which JSON does not have."""
    branches = {name: _known(value) if isinstance(value, dict) else value for name, value in record.items()}
    return {name: value for name, value in branches.items() if not (isinstance(value, float) and math.isnan(value))}
