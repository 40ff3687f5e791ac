"""The registry of scale sources: every way to find scale and shift of a frame, best first.

A new source is one file with its ``measure`` function, one line in ``SOURCES`` and, if it is metric, its name among the
choices of ``scale.source`` in ``config/parameters.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lotus2_ros.config import ScaleConfig
from lotus2_ros.scale.fit import AlignmentError
from lotus2_ros.scale.ground import measure_by_camera_height
from lotus2_ros.scale.reference import Reference, measure_by_reference
from lotus2_ros.scale.scale import RelativeGeometry, Scale, relative_scale
from lotus2_ros.scale.shift import measure_by_normals

REFERENCE = "reference"


@dataclass(frozen=True)
class ScaleSource:
    """One way to find the scale of a frame."""

    name: str  # Scale.source, and a choice of the parameter scale.source if the source is metric
    metric: bool
    needs: tuple[str, ...]  # REFERENCE, and fields of RelativeGeometry besides disparity
    # (frame, reference, config) -> Scale. Raises AlignmentError if the data do not determine it.
    function: Callable[[RelativeGeometry, Reference | None, ScaleConfig], Scale]
    is_configured: Callable[[ScaleConfig], bool] = lambda config: True
    yields: bool = True  # does not measure while the last measurement of a better source is valid

    @property
    def needs_reference(self) -> bool:
        """Whether the source measures only when a reference arrives; the others can measure every frame."""
        return REFERENCE in self.needs

    def measure(self, frame: RelativeGeometry, reference: Reference | None, config: ScaleConfig) -> Scale:
        """Scale and shift of a frame. ``reference`` belongs to this frame.

        Raises AlignmentError if an input is missing or the data do not determine the scale.
        """
        given = {REFERENCE: reference, "image": frame.image, "normals": frame.normals, "camera": frame.camera}
        missing = [need for need in self.needs if given[need] is None]
        if missing:
            expected, got = " and ".join(self.needs), " and no ".join(missing)
            raise AlignmentError(f"expected {expected} for {self.name}, got no {got}")
        return self.function(frame, reference, config)


# In the order of scale.source = auto.
SOURCES = (
    ScaleSource("reference_depth", True, (REFERENCE,), measure_by_reference, yields=False),
    ScaleSource("reference_points", True, (REFERENCE,), measure_by_reference, yields=False),
    ScaleSource("odometry", True, (REFERENCE,), measure_by_reference),
    ScaleSource(
        "camera_height", True, ("normals", "camera"), measure_by_camera_height, lambda config: config.camera_height > 0
    ),
    ScaleSource(
        "metric_model", True, (REFERENCE,), measure_by_reference, lambda config: bool(config.metric_model)
    ),
    ScaleSource("normals", False, ("normals", "camera"), measure_by_normals, lambda config: config.relative_shift == 0),
    ScaleSource(
        "none", False, (), lambda frame, reference, config: relative_scale(config.relative_shift),
        lambda config: config.relative_shift > 0,
    ),
)  # fmt: skip


def metric_sources(config: ScaleConfig) -> list[ScaleSource]:
    """The metric sources that ``scale.source`` selects and that are configured, best first."""
    selected = [source for source in SOURCES if source.metric and config.source in ("auto", source.name)]
    return [source for source in selected if source.is_configured(config)]


def relative_source(config: ScaleConfig) -> ScaleSource:
    """The source of a scale without meters."""
    return next(source for source in SOURCES if not source.metric and source.is_configured(config))


def is_better(name: str, other: str) -> bool:
    """Whether the source called ``name`` comes before ``other`` in the order of auto."""
    names = [source.name for source in SOURCES]
    return names.index(name) < names.index(other)
