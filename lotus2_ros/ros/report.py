"""The FrameReport of one frame."""

from __future__ import annotations

import math
from collections.abc import Mapping

from std_msgs.msg import Header

from lotus2_ros.config import SharpConfig
from lotus2_ros.inference.facts import ModelFacts
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.msg import FrameReport

COUNTERS = ("received", "processed", "dropped", "rejected", "sharpened")  # of frames: the fields frames_*
SIGMA_STRIDE = 4  # pixels; sigma is smooth


def frame_report(
    geometry: Geometry, model: ModelFacts, sharp: SharpConfig, latency: Mapping[str, float], header: Header
) -> FrameReport:
    """The report of one frame, without counters. ``latency``: seconds per stage."""
    scale = geometry.scale
    return FrameReport(
        header=header,
        stage=geometry.stage,
        model=model.name,
        precision=model.precision,
        device=model.device,
        scale_source=scale.source,
        metric=scale.metric,
        scale=scale.scale,
        shift=scale.shift,
        scale_age=scale.age,
        inlier_fraction=scale.inlier_fraction,
        scale_note=scale.note,
        reference_error=scale.reference_error,
        uncertainty=math.nan if geometry.uncertainty is None else float(geometry.uncertainty.mean()),
        sigma=median_sigma(geometry),
        sharpener_note=model.sharpener_note(sharp),
        latency_names=list(latency),
        latency_ms=[1e3 * seconds for seconds in latency.values()],
    )


def median_sigma(geometry: Geometry) -> float:
    """Median standard deviation of depth as a share of depth; NaN where it was not asked for."""
    if geometry.sigma is None or geometry.depth is None:
        return math.nan
    return float((geometry.sigma / geometry.depth)[::SIGMA_STRIDE, ::SIGMA_STRIDE].nanmedian())
