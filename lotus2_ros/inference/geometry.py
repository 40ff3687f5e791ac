"""The estimated geometry of one image."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.sky import sky_mask
from lotus2_ros.inference.annotations import Annotations
from lotus2_ros.model.engine.device import Stopwatch
from lotus2_ros.scale.scale import Scale


@dataclass(frozen=True)
class Geometry:
    """The geometry of one image. Tensors are on the model's device, at the image's size (H, W).

    A quantity that the model does not predict, or that was not requested, is None. The tensors were made in inference
    mode: ``clone()`` them before changing them in place.
    """

    image: Tensor = field(repr=False)  # (H, W, 3) uint8 RGB
    camera: Camera | None
    stage: str  # core | sharpener
    scale: Scale  # from disparity to depth; scale.metric: in meters; scale.note: why not
    annotations: Annotations = field(repr=False)
    stopwatch: Stopwatch = field(repr=False)  # of what was done for it
    latents: dict[str, Tensor] = field(repr=False, default_factory=dict)  # clean annotation latents by task
    sky: Tensor | None = field(repr=False, default=None)  # (H, W) bool; None: not looked for
    coarse: Geometry | None = field(repr=False, default=None)  # what it was sharpened from

    @property
    def disparity(self) -> Tensor | None:
        """(H, W) float32 in [0, 1], affine-invariant, 1 = near."""
        return self.annotations.disparity

    @property
    def normals(self) -> Tensor | None:
        """(H, W, 3) float32, unit length, in the camera's optical frame (x right, y down, z forward), toward it."""
        return self.annotations.normals

    @property
    def uncertainty(self) -> Tensor | None:
        """(H, W) float32, standard deviation of the disparity over a model's answers, or by its own head; None for a
        model that gives one answer and has no head."""
        return self.annotations.uncertainty

    @property
    def latency(self) -> dict[str, float]:
        """Seconds per stage, in order. Waits until the model's device is done with them."""
        return self.stopwatch.read()

    @property
    def is_shift_known(self) -> bool:
        """Whether depth has the scene's shape: its shift comes from a camera and normals, or from a metric scale."""
        return self.camera is not None or self.scale.metric

    @cached_property
    def depth(self) -> Tensor | None:
        """(H, W) float32 along z: meters if ``scale.metric``, else up to one unknown factor; NaN invalid, +Inf sky."""
        if self.disparity is None:
            return None
        depth = self.scale.depth_of(self.disparity, self.image)
        return depth if self.sky is None else depth.masked_fill_(self.sky, torch.inf)

    @cached_property
    def sigma(self) -> Tensor | None:
        """(H, W) float32, one standard deviation of ``depth`` in meters; NaN and Inf where depth is.

        None where it was not asked for, and while the scale is not metric.
        """
        if self.depth is None or self.scale.spread is None:
            return None
        return self.scale.spread.sigma(self.depth, self.uncertainty)

    def points(self) -> Tensor:
        """The pixels as points (H, W, 3) float32 in the camera's optical frame, in the unit of ``depth``; NaN invalid.

        Raises ValueError without a camera or without depth.
        """
        if self.camera is None:
            raise ValueError("expected a geometry with a camera for its points; pass camera= to predict()")
        if self.depth is None:
            raise ValueError("expected a geometry with depth for its points; the model was not asked for depth")
        return self.camera.unproject(self.depth)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the geometry into a folder, which is made if it is missing; files of the same names are replaced.

        disparity.npy, normals.npy and uncertainty.npy where predicted; depth.npy with a camera or a metric scale;
        points.ply with a camera; preview.png always. Arrays are float32 as the attributes of the same names. Raises
        OSError if a file cannot be written.
        """
        # matplotlib and Open3D come with these, and a node needs neither.
        from lotus2_ros.view.ply import save_ply
        from lotus2_ros.view.preview import Row, save_preview

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: getattr(self, name) for name in ("disparity", "normals", "uncertainty")}
        arrays["depth"] = self.depth if self.is_shift_known else None
        for name, values in arrays.items():
            if values is not None:
                np.save(folder / f"{name}.npy", values.cpu().numpy())
        if self.camera is not None and self.depth is not None:
            save_ply(folder / "points.ply", self.points(), self.image, self.normals)
        stages = [self] if self.coarse is None else [self.coarse, self]
        rows = [
            Row(
                stage.stage, stage.image, stage.disparity, stage.depth if stage.is_shift_known else None,
                stage.normals, stage.camera, stage.scale.metric,
            )
            for stage in stages
        ]  # fmt: skip
        save_preview(folder / "preview.png", rows)


def sky_of(found: Annotations, scale: Scale) -> Tensor | None:
    """The sky (H, W) bool; None unless disparity and normals are both there."""
    if found.disparity is None or found.normals is None:
        return None
    return sky_mask(found.disparity, found.normals, scale.shift / scale.scale)
