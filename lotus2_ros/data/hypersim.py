"""Hypersim (Roberts et al., ICCV 2021), to train on."""

from __future__ import annotations

import csv
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tqdm import tqdm

from lotus2_ros.data.files import Files
from lotus2_ros.data.reader import Reader, require_one_size, stem
from lotus2_ros.data.sample import Sample
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.normals import normalize

# Of every camera, in pixels of an image of width 1024, with the principal point in the middle.
FOCAL_LENGTH = 886.81
# Its camera is x right, y up, z backward.
CAMERA_TO_OPTICAL = torch.tensor([1.0, -1.0, -1.0])


class Hypersim(Reader):
    """The public training frames whose depth has no NaN, about 39 thousand, 1024 x 768, from Apple's ml-hypersim ::

        metadata_images_split_scene_v1.csv
        ai_001_001/images/scene_cam_00_final_preview/frame.0000.tonemap.jpg
        ai_001_001/images/scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5   distance along the ray
        ai_001_001/images/scene_cam_00_geometry_hdf5/frame.0000.normal_cam.hdf5

    Finding the frames without NaN reads every depth, some minutes; they are written to `complete_train.txt` for the
    next time. Without the csv all frames in `root` are taken, which is right for the `train` that Lotus prepares.
    """

    pattern = "ai_*/images/scene_*_final_preview/frame.*.tonemap.jpg"

    def __init__(self, root: Path) -> None:
        self.files = Files(root)
        split = root / "metadata_images_split_scene_v1.csv"
        self.names = _complete_frames(self.files, split) if split.exists() else self.files.glob(self.pattern)

    def read(self, name: str) -> Sample:
        image = self.files.read_image(name)
        height, width = image.shape[:2]
        focal = FOCAL_LENGTH / 1024 * width
        camera = Camera.from_intrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
        distance = self.files.read_hdf5(_geometry(name, "depth_meters"))
        normals = normalize(self.files.read_hdf5(_geometry(name, "normal_cam"))) * CAMERA_TO_OPTICAL
        for truth in (distance, normals):
            require_one_size(self.files.root / name, image, truth)
        # Some of its surfaces have normals that point away from who sees them.
        away = (normals * camera.rays).sum(-1, keepdim=True) > 0
        return Sample(
            stem(name), image, distance / camera.rays.norm(dim=-1), torch.where(away, -normals, normals), camera.K
        )


def _geometry(name: str, kind: str) -> str:
    return name.replace("_final_preview/", "_geometry_hdf5/").replace("tonemap.jpg", f"{kind}.hdf5")


def _complete_frames(files: Files, split: Path) -> list[str]:
    """The images of the training frames in the table `split` that have a whole depth."""
    complete = split.with_name("complete_train.txt")
    if not complete.exists():
        with split.open(newline="") as table:
            names = [
                f"{row['scene_name']}/images/scene_{row['camera_name']}_final_preview/"
                f"frame.{int(row['frame_id']):04d}.tonemap.jpg"
                for row in csv.DictReader(table)
                if row["included_in_public_release"] == "True" and row["split_partition_name"] == "train"
            ]
        if not names:
            raise ValueError(f"{split}: expected frames of the split train in the public release, got none")
        # Several processes may be at it at once, and none may find half a list.
        with TemporaryDirectory(dir=split.parent) as folder:
            partial = Path(folder) / complete.name
            with partial.open("w") as file:
                for name in tqdm(names, desc="Hypersim: frames without NaN"):
                    if not files.read_hdf5(_geometry(name, "depth_meters")).isnan().any():
                        print(name, file=file)
            partial.replace(complete)
    return complete.read_text().splitlines()
