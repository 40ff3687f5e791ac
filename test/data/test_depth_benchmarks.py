"""Each data set as its files are on disk; pixels that do not count are NaN."""

import numpy as np
import pytest
import torch

from lotus2_ros.data.depth_benchmarks import DIODE, ETH3D, KITTI, NYUv2, ScanNet


def test_nyuv2_counts_eigens_crop_and_range(write):
    millimetres = np.full((480, 640), 2500)
    millimetres[45, 41], millimetres[470, 600], millimetres[100, 100] = 9999, 10000, 0
    write.plain("test/kitchen_0004/rgb_0001.png", 480, 640)
    write.png16("test/kitchen_0004/depth_0001.png", millimetres)
    write.plain("train/kitchen_0004/rgb_0002.png", 480, 640)  # not to evaluate on
    (sample,) = NYUv2(write.root)
    assert sample.name == "test/kitchen_0004/rgb_0001" and sample.normals is None
    assert sample.image.shape == (480, 640, 3) and sample.image[0, 0].tolist() == [10, 120, 240]
    known = torch.isfinite(sample.depth)
    assert known.nonzero().amin(0).tolist() == [45, 41] and known.nonzero().amax(0).tolist() == [470, 599 + 1]
    assert known.sum() == 426 * 560 - 2 and not known[470, 600] and not known[100, 100]
    assert sample.depth[45, 41] == pytest.approx(9.999) and sample.depth[200, 200] == 2.5


def test_kitti_is_cropped_and_counts_eigens_part(write):
    height, width = 375, 1242
    image = np.zeros((height, width, 3), np.uint8)
    image[23, 13] = 1, 2, 3  # the corner of the crop
    depth = np.full((height, width), 20 * 256 + 64)
    depth[23 + 117, 13 + 43], depth[300, 600], depth[301, 600] = 256, 80 * 256, 0
    drive = "2011_09_26_drive_0002_sync"
    write.rgb(f"2011_09_26/{drive}/image_02/data/0000000069.png", image)
    write.png16(f"{drive}/proj_depth/groundtruth/image_02/0000000069.png", depth)
    (sample,) = KITTI(write.root)
    assert sample.name == f"2011_09_26/{drive}/image_02/data/0000000069"
    assert sample.image.shape == (352, 1216, 3) and sample.image[0, 0].tolist() == [1, 2, 3]
    known = torch.isfinite(sample.depth)
    assert known.nonzero().amin(0).tolist() == [117, 43] and known.nonzero().amax(0).tolist() == [320, 1171]
    assert known.sum() == 204 * 1129 - 2  # 80 m and 0 do not count
    assert sample.depth[117, 43] == 1 and sample.depth[200, 200] == 20.25


def test_kitti_refuses_images_that_are_too_small(write):
    drive = "2011_09_26_drive_0002_sync"
    write.plain(f"2011_09_26/{drive}/image_02/data/0000000069.png", 376, 1200)
    write.png16(f"{drive}/proj_depth/groundtruth/image_02/0000000069.png", np.ones((376, 1200)))
    with pytest.raises(ValueError, match=r"0000000069\.png: expected at least 1216 x 352 pixels, got 1200 x 376"):
        KITTI(write.root)[0]


def test_eth3d_has_raw_floats(write):
    depth = np.arange(1, 25, dtype=np.float32).reshape(4, 6) / 2
    depth[2, 3] = np.inf
    truth = "depth/office_dslr_depth/office/ground_truth_depth/dslr_images/DSC_0219.JPG"
    write.plain("rgb/office/images/dslr_images/DSC_0219.JPG", 4, 6)
    write.path(truth).write_bytes(depth.tobytes())
    (sample,) = ETH3D(write.root)
    assert sample.name == "rgb/office/images/dslr_images/DSC_0219"
    assert sample.depth[1].tolist() == [3.5, 4, 4.5, 5, 5.5, 6]
    assert torch.isnan(sample.depth).nonzero().tolist() == [[2, 3]]
    write.path(truth).write_bytes(depth.tobytes()[:-4])
    with pytest.raises(ValueError, match=r"DSC_0219\.JPG: expected 6 x 4 float32, 96 B, got 92 B"):
        ETH3D(write.root)[0]


def test_scannet(write):
    for frame in ("000300", "001100"):
        write.plain(f"scene0406_02/color/{frame}.jpg", 4, 6)
        write.png16(f"scene0406_02/depth/{frame}.png", np.array([[0, 1, 2, 1500, 9999, 10000]] * 4))
    samples = ScanNet(write.root)
    assert len(samples) == 2 and samples[1].name == "scene0406_02/color/001100"
    torch.testing.assert_close(
        samples[0].depth[3], torch.tensor([torch.nan, torch.nan, 0.002, 1.5, 9.999, torch.nan]), equal_nan=True
    )


def test_image_and_truth_have_one_size(write):
    write.plain("scene0406_02/color/000300.jpg", 8, 6)
    write.png16("scene0406_02/depth/000300.png", np.ones((4, 6)))
    with pytest.raises(ValueError, match=r"000300\.jpg: expected truth of the image's size, 6 x 8, got 6 x 4"):
        ScanNet(write.root)[0]


def test_diode_counts_its_mask_and_nothing_else(write):
    base = "indoors/scene_00021/scan_00189/00021_00189_indoors_200_010"
    depth = np.arange(24, dtype=np.float32).reshape(4, 6, 1) * 100  # 400 m and more count too
    mask = np.zeros((4, 6), np.float32)
    mask[0, 1], mask[3, 5] = 1, 1
    write.plain(f"{base}.png", 4, 6)
    write.npy(f"{base}_depth.npy", depth)
    write.npy(f"{base}_depth_mask.npy", mask)
    (sample,) = DIODE(write.root)
    assert torch.isfinite(sample.depth).nonzero().tolist() == [[0, 1], [3, 5]]
    assert sample.name == base and sample.depth[0, 1] == 100 and sample.depth[3, 5] == 2300
    write.npy(f"{base}_depth_mask.npy", mask[:2])
    with pytest.raises(ValueError, match=r"expected depth and mask of one size, got \[4, 6\] and \[2, 6\]"):
        DIODE(write.root)[0]


def test_a_missing_truth_is_named(write):
    write.plain("scene0406_02/color/000300.jpg", 4, 6)
    with pytest.raises(FileNotFoundError, match=r"scene0406_02/depth/000300\.png"):
        ScanNet(write.root)[0]
