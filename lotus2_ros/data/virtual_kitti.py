"""Virtual KITTI 2 (Cabon et al., 2020), to train on."""

from __future__ import annotations

from pathlib import Path

import torch

from lotus2_ros.data.reader import Reader, benchmark_crop, require_one_size, stem
from lotus2_ros.data.sample import Sample
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.normals import normals_from_depth

# Pixels with integer centers, of an image of 1242 x 375.
FOCAL_LENGTH, CX, CY = 725.0087, 620.5, 187.0
# Meters from where on there is only sky; its own pixels are 655.35.
SKY = 80.0


class VirtualKITTI2(Reader):
    """Scenes 02, 06, 18 and 20 in all ten conditions from both cameras, about 20 thousand frames; 01 is held out.

    From Naver Labs Europe, vkitti_2.0.3_rgb.tar and vkitti_2.0.3_depth.tar unpacked in one folder ::

        Scene02/clone/frames/rgb/Camera_0/rgb_00000.jpg     1242 x 375
        Scene02/clone/frames/depth/Camera_0/depth_00000.png  uint16 centimeters

    All cropped to the last 352 rows, middle 1216 columns. Normals are those of planes fitted to the depth.
    """

    pattern = "Scene*/*/frames/rgb/Camera_[01]/rgb_*.jpg"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.names = [name for name in self.names if not name.startswith("Scene01/")]

    def read(self, name: str) -> Sample:
        image = self.files.read_image(name)
        depth = self.files.read_depth_png(name.replace("rgb", "depth").replace(".jpg", ".png"), 100)
        require_one_size(self.files.root / name, image, depth)
        rows, columns = benchmark_crop(self.files.root / name, image)
        image, depth = image[rows, columns], depth[rows, columns]
        height, width = image.shape[:2]
        camera = Camera.from_intrinsics(width, height, FOCAL_LENGTH, FOCAL_LENGTH, CX - columns.start, CY - rows.start)
        depth = torch.where(depth > 0, depth, torch.nan)
        depth = torch.where(depth >= SKY, torch.inf, depth)
        return Sample(stem(name), image, depth, normals_from_depth(depth, camera.rays), camera.K)
