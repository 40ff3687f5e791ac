"""What the node did with one frame, as a FrameReport."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from std_msgs.msg import Header

from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.msg import FrameReport


def frame_report(geometry: Geometry, estimator: Estimator, latency: Mapping[str, float], header: Header) -> FrameReport:
    """The report of one frame, without counters. ``latency``: seconds per stage."""
    scale, model = geometry.scale, estimator.model
    return FrameReport(
        header=header,
        stage=geometry.stage,
        model=model.name,
        precision=model.precision,
        device=device_name(estimator.device),
        scale_source=scale.source,
        metric=scale.metric,
        scale=scale.scale,
        shift=scale.shift,
        scale_age=scale.age,
        inlier_fraction=scale.inlier_fraction,
        scale_note=scale.note,
        reference_error=scale.reference_error,
        uncertainty=math.nan if geometry.uncertainty is None else float(geometry.uncertainty.mean()),
        sigma=math.nan,
        sharpener_note=sharpener_note(estimator),
        latency_names=list(latency),
        latency_ms=[1e3 * seconds for seconds in latency.values()],
    )


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def sharpener_note(estimator: Estimator) -> str:
    """Why the sharpener does not run; empty if it does."""
    model, sharp = estimator.model, estimator.config.sharp
    if not any(map(model.has_sharpener, model.tasks)):
        return f"{model.name} has no detail sharpener"
    if not sharp.enabled:
        return "sharp.enabled is false"
    if not (model.settings.sharpen_by_default or sharp.steps):
        return f"off by default for {model.name}, which gains little from it; set sharp.steps to a number of steps"
    return ""
