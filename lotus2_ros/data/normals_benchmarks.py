"""Data sets to evaluate normals on, as DSINE prepared them (Bae and Davison, CVPR 2024): its ``dsine_eval.zip``,
unpacked.

``NAME_img.png``, ``NAME_intrins.npy`` (3, 3) in pixels with integer centers, and ``NAME_normal.png`` (uint8, 127.5
(n + 1), 0 0 0 where unknown) or ``NAME_normal.exr`` (float, 0 0 0 where unknown). Their axes are the model's, x left,
y up, z toward the camera; the samples' are those of the optical frame.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lotus2_ros.data.reader import Reader
from lotus2_ros.data.sample import Sample
from lotus2_ros.geometry.normals import MODEL_TO_OPTICAL, normalize


class DSINE(Reader):
    """One of the sets: where its images are in its folder."""

    def read(self, name: str) -> Sample:
        base = name.removesuffix("_img.png")
        K = torch.from_numpy(self.files.read_npy(f"{base}_intrins.npy")).double()
        if K.shape != (3, 3):
            where = self.files.root / f"{base}_intrins.npy"
            raise ValueError(f"{where}: expected intrinsics (3, 3), got {tuple(K.shape)}")
        return Sample(base, self.files.read_image(name), normals=MODEL_TO_OPTICAL * self.read_normals(base), K=K)

    def read_normals(self, base: str) -> Tensor:
        """(H, W, 3) in the model's axes."""
        color = self.files.read_image(f"{base}_normal.png")
        known = (color > 0).any(-1, keepdim=True)
        return torch.where(known, normalize(color / 127.5 - 1), torch.nan)


class NYUv2Normals(DSINE):
    """NYU Depth v2's 654 test frames with the normals of GeoNet (Qi et al., CVPR 2018): ``dsine_eval/nyuv2`` ::

    test/000000_img.png   640 x 480
    """

    pattern = "test/*_img.png"


class ScanNetNormals(DSINE):
    """300 frames of ScanNet with the normals of FrameNet (Huang et al., ICCV 2019): ``dsine_eval/scannet`` ::

    scene0532_00/000000_img.png   640 x 480
    """

    pattern = "scene*/*_img.png"


class FloatDSINE(DSINE):
    """Normals in OpenEXR, by DSINE's authors from depth."""

    def read_normals(self, base: str) -> Tensor:
        normals = self.files.read_exr(f"{base}_normal.exr")
        known = normals.norm(dim=-1, keepdim=True) > 0.5
        return torch.where(known, normalize(normals), torch.nan)


class IBims1Normals(FloatDSINE):
    """iBims-1, 100 indoor frames (Koch et al., ECCVW 2018): ``dsine_eval/ibims`` ::

    ibims/corridor_01_img.png   640 x 480
    """

    pattern = "ibims/*_img.png"


class SintelNormals(FloatDSINE):
    """MPI Sintel, 1064 rendered frames (Butler et al., ECCV 2012): ``dsine_eval/sintel`` ::

    alley_1/frame_0001_img.png   1024 x 436
    """

    pattern = "*/frame_*_img.png"
