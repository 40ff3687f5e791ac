"""Data sets to evaluate depth on, as Marigold prepared them and the public evaluation of Lotus-2 reads them.

Each is one tar of Marigold's evaluation data sets (ETH Zurich, photogrammetry and remote sensing), which may stay one
or be unpacked. A pixel that does not count, by the crop, the mask or the range of its data set, is NaN in the depth.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import torch

from lotus2_ros.data.reader import Reader, benchmark_crop, require_one_size, stem, within
from lotus2_ros.data.sample import Sample


class NYUv2(Reader):
    """NYU Depth v2 (Silberman et al., ECCV 2012), the 654 labeled test frames: ``nyu_labeled_extracted.tar`` ::

        test/SCENE/rgb_0001.png     640 x 480
        test/SCENE/depth_0001.png   uint16 millimeters, 0 where not measured

    Counted are rows 45 to 470 and columns 41 to 600 (Eigen et al., NeurIPS 2014), more than 1 mm and less than 10 m.
    """

    pattern = "test/*/rgb_*.png"
    depth_range = (1e-3, 10.0)

    def read(self, name: str) -> Sample:
        depth = within(self.files.read_depth_png(name.replace("/rgb_", "/depth_"), 1000), self.depth_range)
        counted = torch.full_like(depth, torch.nan)
        counted[45:471, 41:601] = depth[45:471, 41:601]
        return Sample(stem(name), self.files.read_image(name), counted)


class KITTI(Reader):
    """KITTI's depth (Geiger et al., CVPR 2012; Uhrig et al., 3DV 2017), Eigen's test frames, 652 of which have truth:
    ``kitti_eigen_split_test.tar`` ::

        2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png                     about 1242 x 375
        2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000069.png   uint16 meters * 256, 0: none

    Image and depth are cropped to the last 352 rows, middle 1216 columns. Counted is Eigen's part of these, up to 80 m.
    """

    pattern = "*_sync/proj_depth/groundtruth/image_02/*.png"
    depth_range = (1e-5, 80.0)

    def read(self, name: str) -> Sample:
        drive, frame = PurePosixPath(name).parts[0], PurePosixPath(name).name
        image_name = f"{drive[: len('2011_09_26')]}/{drive}/image_02/data/{frame}"
        image, depth = self.files.read_image(image_name), self.files.read_depth_png(name, 256)
        require_one_size(self.files.root / name, image, depth)
        crop = benchmark_crop(self.files.root / name, image)
        image, depth = image[crop], depth[crop]
        height, width = depth.shape
        rows = slice(int(0.3324324 * height), int(0.91351351 * height))
        columns = slice(int(0.0359477 * width), int(0.96405229 * width))
        counted = torch.full_like(depth, torch.nan)
        counted[rows, columns] = within(depth, self.depth_range)[rows, columns]
        return Sample(stem(image_name), image, counted)


class ETH3D(Reader):
    """ETH3D's high-resolution training images (Schöps et al., CVPR 2017), 454: ``eth3d.tar`` ::

    rgb/office/images/dslr_images/DSC_0219.JPG                                  6048 x 4032
    depth/office_dslr_depth/office/ground_truth_depth/dslr_images/DSC_0219.JPG  float32 meters by rows, Inf: none
    """

    pattern = "depth/*_dslr_depth/*/ground_truth_depth/dslr_images/*.JPG"
    depth_range = (1e-5, torch.inf)

    def read(self, name: str) -> Sample:
        image_name = f"rgb/{name.split('/')[2]}/images/dslr_images/{PurePosixPath(name).name}"
        image = self.files.read_image(image_name)
        data = bytearray(self.files.read(name))
        height, width = image.shape[:2]
        if len(data) != 4 * height * width:
            where = self.files.root / name
            raise ValueError(f"{where}: expected {width} x {height} float32, {4 * height * width} B, got {len(data)} B")
        depth = torch.frombuffer(data, dtype=torch.float32).view(height, width)
        return Sample(stem(image_name), image, within(depth, self.depth_range))


class ScanNet(Reader):
    """ScanNet (Dai et al., CVPR 2017), 800 frames of its validation scenes: ``scannet_val_sampled_800_1.tar`` ::

    scene0406_02/color/000300.jpg   640 x 480
    scene0406_02/depth/000300.png   uint16 millimeters, 0 where not measured
    """

    pattern = "scene*/color/*.jpg"
    depth_range = (1e-3, 10.0)

    def read(self, name: str) -> Sample:
        depth = self.files.read_depth_png(name.replace("/color/", "/depth/").replace(".jpg", ".png"), 1000)
        return Sample(stem(name), self.files.read_image(name), within(depth, self.depth_range))


class DIODE(Reader):
    """DIODE's validation set, indoors and outdoors (Vasiljevic et al., 2019), 771: ``diode_val.tar`` ::

        indoors/scene_00021/scan_00189/00021_00189_indoors_200_010.png             1024 x 768
        indoors/scene_00021/scan_00189/00021_00189_indoors_200_010_depth.npy       float32 meters (768, 1024, 1)
        indoors/scene_00021/scan_00189/00021_00189_indoors_200_010_depth_mask.npy  (768, 1024), 1 where depth is valid

    The mask alone says what counts; predictions are clipped to the range.
    """

    pattern = "*/scene_*/scan_*/*.png"
    depth_range = (0.6, 350.0)

    def read(self, name: str) -> Sample:
        depth = torch.from_numpy(self.files.read_npy(f"{stem(name)}_depth.npy").squeeze()).float()
        mask = torch.from_numpy(self.files.read_npy(f"{stem(name)}_depth_mask.npy").squeeze()).bool()
        if mask.shape != depth.shape:
            where = self.files.root / name
            raise ValueError(f"{where}: expected depth and mask of one size, got {[*depth.shape]} and {[*mask.shape]}")
        return Sample(stem(name), self.files.read_image(name), torch.where(mask, depth, torch.nan))
