"""A mesh from a recording with poses: every frame's depth in meters goes into one truncated signed distance field."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lotus2_ros.bags import Recording
from lotus2_ros.bags.frames import Say
from lotus2_ros.config import CloudConfig, Config
from lotus2_ros.config.errors import RunError
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.clouds import cloud_of
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.inference.work import Workers
from lotus2_ros.ros.recorded_camera import RecordedCamera

TRUNCATION = 4.0  # voxels to either side of a surface that a depth changes
BLOCK, BLOCKS = 16, 1000  # voxels along the side of a block; blocks to begin with, their number grows
SEEN = 1.0  # a surface counts if more frames than this see it


@dataclass(frozen=True)
class Map:
    """A mesh in the fixed frame of the poses, and the number of frames in it by the source of their scale."""

    mesh: Any  # open3d.geometry.TriangleMesh
    sources: Counter[str]
    refused: list[str]  # why, for each frame that is not in it


def map_recording(workers: Workers, recording: Recording, config: Config, voxel: float, warn: Say) -> Map:
    """The mesh of all frames with depth in meters and a pose, with voxels of this many meters (Curless and Levoy 1996).

    The parameters of clouds apply: their limits of depth, edges and uncertainty. Raises RunError without such a frame.
    """
    volume = Volume(voxel)
    camera = RecordedCamera(config, warn)
    found = Map(None, Counter(), [])
    frames = camera.predicted_frames(workers, recording)
    for predicted in tqdm(frames, unit=" frames", total=recording.count):
        try:
            geometry, _ = next(camera.geometries(predicted, camera.reference(predicted)))
            if not geometry.scale.metric:
                raise ValueError(f"depth is not in meters: {geometry.scale.note or 'no reference has come yet'}")
            volume.add(geometry, camera.pose(predicted.frame), config.cloud)
        except (ValueError, RuntimeError, MemoryError) as error:
            found.refused.append(str(error))
            continue
        found.sources[geometry.scale.source] += 1
    if not found.sources:
        reason = found.refused[-1] if found.refused else "it has no image that can be decoded"
        raise RunError(f"{recording.name}: no frame can be mapped: {reason}")
    return replace(found, mesh=volume.mesh())


class Volume:
    """A truncated signed distance field with color, in blocks of voxels near surfaces."""

    def __init__(self, voxel: float) -> None:
        import open3d as o3d  # takes a second, and most commands need none

        self._o3d = o3d
        names, kinds, channels = ("tsdf", "weight", "color"), (o3d.core.float32,) * 3, ((1), (1), (3))
        self._grid = o3d.t.geometry.VoxelBlockGrid(names, kinds, channels, voxel, BLOCK, BLOCKS)

    def add(self, geometry: Geometry, pose: Tensor, config: CloudConfig) -> None:
        """Integrate the depth of a frame; ``pose`` (4, 4) from the camera's optical frame to that of the volume.

        Raises ValueError if the limits of clouds leave nothing of it.
        """
        cloud, camera = cloud_of(geometry, replace(config, stride=1, normals=False)), geometry.camera
        assert cloud is not None and camera is not None  # depth is metric
        depth, color = cloud[..., 2].nan_to_num(0.0).numpy(), (geometry.image / 255).numpy()
        if not depth.any():
            raise ValueError(f"nothing is within cloud.max_depth {config.max_depth:g} m and the other limits")
        if camera.lens is not None:
            depth, color = (_undistorted(values, camera) for values in (depth, color))
        pictures = [self._o3d.t.geometry.Image(np.ascontiguousarray(values)) for values in (depth, color)]
        K, extrinsic = (self._o3d.core.Tensor(m.double().numpy()) for m in (camera.K, torch.linalg.inv(pose)))
        how = {"depth_scale": 1.0, "depth_max": 2 * float(depth.max()), "trunc_voxel_multiplier": TRUNCATION}
        blocks = self._grid.compute_unique_block_coordinates(pictures[0], K, extrinsic, **how)
        self._grid.integrate(blocks, *pictures, K, K, extrinsic, **how)

    def mesh(self) -> Any:
        return self._grid.extract_triangle_mesh(weight_threshold=SEEN).to_legacy()


def _undistorted(values: np.ndarray, camera: Camera) -> np.ndarray:
    """The image of the camera without its lens, 0 beyond the image. The nearest pixel, because depths must not mix."""
    pixels, _ = camera.project(Camera(camera.width, camera.height, camera.K).rays)
    u, v = pixels.float().movedim(-1, 0).contiguous().numpy()
    return np.asarray(cv2.remap(values, u, v, cv2.INTER_NEAREST))
