"""Measured depth of the camera's view, and the scale that it gives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lotus2_ros.config import ScaleConfig
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.depth import Space, valid_depth
from lotus2_ros.geometry.projection import sparse_depth
from lotus2_ros.model.engine.device import to_host
from lotus2_ros.scale.fit import AlignmentError, FitStats, fit_scale_shift
from lotus2_ros.scale.scale import RelativeGeometry, Scale, metric_scale

# Most points of a fit. More make it slower, not better.
FIT_POINTS = 8192
# The fractional parts of its multiples are spread evenly over [0, 1), without a pattern that rows of an image share.
GOLDEN_RATIO = (5**0.5 - 1) / 2
# A fit is refused if it puts most of the image farther than this many times the farthest measurement. Pixels with the
# lowest disparity, as a fraction of its range, do not count: they may be sky.
MAX_RANGE_RATIO = 10.0
SKY_DISPARITY = 0.05
RANGE_SAMPLES = 80  # pixels along the longer side of the image that are checked


@dataclass(frozen=True)
class Reference:
    """Measured depth of the camera's view: (H', W') meters along z, of any size, dense or sparse.

    0, negative, NaN and Inf mean no measurement. Depth and weight are kept on the host. Raises ValueError if ``depth``
    is not a matrix, or ``weight`` not like it.
    """

    depth: Tensor
    stamp: float = 0.0  # seconds, of the frame that it belongs to
    source: str = "reference_depth"  # name of the ScaleSource
    weight: Tensor | None = None  # (H', W'): a measurement of weight 2 counts as two of weight 1. None: all count 1.
    age: float = 0.0  # seconds from the measurement to `stamp`
    deviation: float = 0.0  # relative, of an error that all measurements share
    problem: str = ""  # why it must not be used

    def __post_init__(self) -> None:
        if self.depth.ndim != 2:
            raise ValueError(f"expected a reference depth of shape (H, W), got {tuple(self.depth.shape)}")
        if self.weight is not None and self.weight.shape != self.depth.shape:
            expected = f"expected weights of shape {tuple(self.depth.shape)}, as depth"
            raise ValueError(f"{expected}, got {tuple(self.weight.shape)}")
        for name in ("depth", "weight"):
            if (values := getattr(self, name)) is not None:
                object.__setattr__(self, name, *to_host(values))

    @cached_property
    def places(self) -> tuple[Tensor, Tensor]:
        """Rows and columns (N,) of at most 8192 measurements."""
        rows, columns = torch.nonzero(valid_depth(self.depth), as_tuple=True)
        if len(rows) > FIT_POINTS:
            places = torch.arange(FIT_POINTS, dtype=torch.float64) * GOLDEN_RATIO % 1
            chosen = (places * len(rows)).long()
            rows, columns = rows[chosen], columns[chosen]
        return rows, columns

    @classmethod
    def of(cls, values: Tensor, camera: Camera | None = None, stamp: float = 0.0) -> Reference:
        """A reference from depth or from points.

        Args:
            values: depth (H, W) in meters along z; or points (N, 3) in meters in the camera's optical frame. A matrix
                with 3 columns is taken as points.
            camera: of the image; needed for points, which are projected into it.
            stamp: time of the measurement, seconds.

        Raises ValueError if ``values`` has another shape or an integer type, or if points come without a camera.
        """
        if not values.is_floating_point():
            raise ValueError("expected a reference in meters as floats, got integers; divide millimeters by 1000")
        if values.ndim != 2 or 0 in values.shape:
            raise ValueError(f"expected a reference of depth (H, W) or points (N, 3), got {tuple(values.shape)}")
        if values.shape[1] != 3:
            return cls(values.float(), stamp)
        if camera is None:
            raise ValueError("expected a camera with reference points (N, 3), got none; pass camera=")
        return cls(sparse_depth(values.float().cpu(), camera), stamp, "reference_points")


def measure_by_reference(frame: RelativeGeometry, reference: Reference | None, config: ScaleConfig) -> Scale:
    """The scale sources whose measurement is a :class:`Reference`."""
    assert reference is not None  # the source needs it
    frame = frame.on_host
    scale, shift, stats = fit_to_reference(frame.disparity, reference)
    _check_range(frame.disparity, scale, shift, reference)
    return metric_scale(scale, shift, reference.source, stats, reference.deviation)


def fit_to_reference(
    disparity: Tensor, reference: Reference, space: Space = "disparity"
) -> tuple[float, float, FitStats]:
    """Scale and shift of ``disparity`` (H, W) in meters, and the quality of the fit.

    depth = 1 / (scale * disparity + shift). With ``space`` "depth", ``disparity`` is affine-invariant depth instead,
    and depth = scale * disparity + shift. Measured depth has the same weight everywhere: in inverse depth, weights that
    grow with depth make depth worse, on streets most. Raises AlignmentError if the reference does not determine the
    fit.
    """
    if reference.problem:
        raise AlignmentError(reference.problem)
    (disparity,) = to_host(disparity)
    rows, columns = reference.places
    measured, predicted = reference.depth[rows, columns], _at(disparity, reference.depth, rows, columns)
    weight = torch.ones_like(measured) if reference.weight is None else reference.weight[rows, columns]
    scale, shift, stats = fit_scale_shift(predicted, 1 / measured if space == "disparity" else measured, weight)
    stats.check()
    return float(scale), float(shift), stats


def sample_reference(reference: Reference) -> tuple[Tensor, Tensor, Tensor]:
    """Places (N,) of at most 8192 measurements, down and across the image from 0 to 1, and depth (N,) in meters."""
    rows, columns = reference.places
    height, width = reference.depth.shape
    return (rows + 0.5) / height, (columns + 0.5) / width, reference.depth[rows, columns]


def _at(disparity: Tensor, depth: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Disparity (N,) in the pixel that contains the center of each measurement's pixel."""
    v = ((rows + 0.5) * disparity.shape[0] / depth.shape[0]).long()
    u = ((columns + 0.5) * disparity.shape[1] / depth.shape[1]).long()
    return disparity[v, u]


def _check_range(disparity: Tensor, scale: float, shift: float, reference: Reference) -> None:
    """Raise AlignmentError if most of the image would lie far beyond the measurements."""
    step = max(1, max(disparity.shape) // RANGE_SAMPLES)
    sample = disparity[::step, ::step]
    low, high = sample.amin(), sample.amax()
    counted = sample > low + SKY_DISPARITY * (high - low)
    farthest = reference.depth.nan_to_num(0.0, 0.0, 0.0).amax()
    beyond = (counted & (scale * sample + shift < 1 / (MAX_RANGE_RATIO * farthest))).sum() / counted.sum()
    share, limit = torch.stack((beyond, MAX_RANGE_RATIO * farthest)).tolist()
    if share > 0.5:
        raise AlignmentError(
            f"expected most of the image within {limit:.3g} m, {MAX_RANGE_RATIO:g} times the range of "
            f"{reference.source}, got {100 * share:.0f} % of it beyond"
        )
