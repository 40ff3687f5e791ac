"""A geometry as files: arrays, a picture, a point cloud."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.view.ply import save_ply
from lotus2_ros.view.preview import Row, save_preview


def save_geometry(geometry: Geometry, folder: Path) -> None:
    """See :meth:`Geometry.save`."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "disparity": geometry.disparity,
        "normals": geometry.normals,
        "depth": geometry.depth if geometry.is_shift_known else None,
        "uncertainty": geometry.uncertainty,
    }
    for name, values in arrays.items():
        if values is not None:
            np.save(folder / f"{name}.npy", values.cpu().numpy())
    if geometry.camera is not None and geometry.depth is not None:
        save_ply(folder / "points.ply", geometry.points(), geometry.image, geometry.normals)
    stages = [geometry] if geometry.coarse is None else [geometry.coarse, geometry]
    save_preview(folder / "preview.png", [_row(stage) for stage in stages])


def _row(geometry: Geometry) -> Row:
    return Row(
        geometry.stage,
        geometry.image,
        geometry.disparity,
        geometry.depth if geometry.is_shift_known else None,
        geometry.normals,
        geometry.camera,
        geometry.scale.metric,
    )
