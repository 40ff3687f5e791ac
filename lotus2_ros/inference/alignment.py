"""From a prediction to depth. This part depends on earlier frames, so it takes the frames in their order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lotus2_ros.config import Config
from lotus2_ros.inference.annotations import Annotations
from lotus2_ros.inference.geometry import Geometry, sky_of
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.fit import AlignmentError
from lotus2_ros.scale.reference import Reference, fit_to_reference
from lotus2_ros.scale.scale import RelativeGeometry, Scale


@torch.inference_mode()
def align(
    geometry: Geometry,
    reference: Reference | None,
    scale_filter: ScaleFilter,
    stamp: float,
    config: Config,
    *,
    with_sigma: bool = True,
) -> Geometry:
    """The geometry of :meth:`Estimator.unaligned` with disparity, scale and sky; the same without depth.

    ``with_sigma``: whether :attr:`Geometry.sigma` will be read.
    """
    found, camera = geometry.annotations, geometry.camera
    if found.affine is None:
        return geometry
    with geometry.stopwatch("align"):
        if found.affine_depth is not None:
            depth_shift = scale_filter.depth_shift.update(
                found.affine_depth, found.normals, camera, reference, config.scale, stamp
            )
            found = found.inverted(depth_shift)
        assert found.disparity is not None  # the model predicts it or affine_depth
        relative = RelativeGeometry(found.disparity, geometry.image, found.normals, camera, stamp)
        scale = scale_filter.align(relative, reference, config.scale, with_sigma=with_sigma)
        scale = replace(scale, is_detailed=not found.is_guided).to(found.disparity.device)
        sky = sky_of(found, scale) if config.depth.sky else None
        return replace(geometry, annotations=found, scale=scale, sky=sky)


@torch.inference_mode()
def align_sharp(coarse: Geometry, found: Annotations, *, sky: bool) -> Geometry:
    """The sharpened prediction, aligned.

    The sharpened disparity has a scale and a shift of its own. It is fitted to the coarse depth, so that the two agree,
    and takes the local field of the coarse geometry. In each cell of the field both get the same mean of log depth: the
    field corrects errors of the coarse depth, and the sharpened one has others of this size. Its details are its own.
    """
    scale = _scale_of_sharp(coarse, found)
    is_sky = sky_of(found, scale) if sky else None
    return replace(coarse, stage="sharpener", annotations=found, sky=is_sky, scale=scale, coarse=coarse)


def _scale_of_sharp(coarse: Geometry, found: Annotations) -> Scale:
    # Without the local field, which the sharp geometry takes over.
    line = replace(coarse, scale=replace(coarse.scale, local=None)).depth
    if found.disparity is not None and line is not None:
        with suppress(AlignmentError):
            factor, shift, _ = fit_to_reference(found.disparity, Reference(line))
            scale = replace(coarse.scale, scale=factor, shift=shift, correction=None, local=None)
            local = coarse.scale.local
            if local is not None:
                sharp = scale.depth_of(found.disparity)
                ratio = line.clamp_max(scale.farthest) / sharp.clamp_max(scale.farthest)
                local = local + _mean_of_cells(ratio.log(), local.shape)
            return replace(scale, local=local, is_detailed=True)
    return coarse.scale


def _mean_of_cells(values: Tensor, size: Sequence[int]) -> Tensor:
    """Values (H, W) on a grid (h, w); NaN and Inf do not count, and a cell without others is 0."""
    known = torch.isfinite(values)
    total, share = (
        F.interpolate(each[None, None], tuple(size), mode="area")[0, 0]
        for each in (torch.where(known, values, 0), known.to(values))
    )
    return total / share.clamp_min(1e-6)
