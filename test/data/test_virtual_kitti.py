"""Virtual KITTI 2's files: centimetres, the sky, the crop and the camera after it, normals from the depth."""

import numpy as np
import pytest
import torch

from lotus2_ros.data.virtual_kitti import VirtualKITTI2

HEIGHT, WIDTH = 375, 1242
FOLDER = "Scene20/15-deg-left/frames"


def test_road_wall_and_sky(write):
    """A wall at 20 m before a road 1.6 m below the camera, under the sky."""
    rows = np.arange(HEIGHT)[:, None] - 187.0
    road = 1.6 * 725.0087 / np.maximum(rows, 1e-3)
    centimetres = np.where(rows < -100, 65535, np.minimum(road, 20) * 100)
    centimetres = np.broadcast_to(np.round(centimetres), (HEIGHT, WIDTH)).copy()
    centimetres[30, 100], centimetres[40, 100] = 0, 8000
    image = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    write.rgb(f"{FOLDER}/rgb/Camera_1/rgb_00007.jpg", image)
    write.png16(f"{FOLDER}/depth/Camera_1/depth_00007.png", centimetres)
    write.plain("Scene01/clone/frames/rgb/Camera_0/rgb_00000.jpg", 4, 6)  # held out
    (sample,) = VirtualKITTI2(write.root)
    assert sample.name == f"{FOLDER}/rgb/Camera_1/rgb_00007" and sample.image.shape == (352, 1216, 3)
    assert sample.K.tolist() == [[725.0087, 0, 607.5], [0, 725.0087, 164], [0, 0, 1]]
    assert (sample.depth[0, 200:] == torch.inf).all() and sample.depth[40 - 23, 100 - 13] == torch.inf
    assert torch.isnan(sample.depth).nonzero().tolist() == [[30 - 23, 100 - 13]]
    assert sample.depth[164, 0] == 20 and sample.depth[-1, 0] == pytest.approx(1.6 * 725.0087 / 187, abs=0.005)
    assert torch.isnan(sample.normals[:60]).all()  # the sky has none
    wall = torch.tensor([0.0, 0.0, -1.0]).expand(80, 1216, 3)
    torch.testing.assert_close(sample.normals[80:160], wall, atol=1e-3, rtol=0)
    up = -sample.normals[-100:, :, 1]
    assert up.min() > np.cos(np.radians(2)) and up.mean() > np.cos(np.radians(0.5))


def test_refused(write):
    write.plain(f"{FOLDER}/rgb/Camera_0/rgb_00000.jpg", 300, 1242)
    write.png16(f"{FOLDER}/depth/Camera_0/depth_00000.png", np.ones((300, 1242)))
    with pytest.raises(ValueError, match=r"rgb_00000\.jpg: expected at least 1216 x 352 pixels, got 1242 x 300"):
        VirtualKITTI2(write.root)[0]
    write.png16(f"{FOLDER}/depth/Camera_0/depth_00000.png", np.ones((375, 1242)))
    with pytest.raises(
        ValueError, match=r"rgb_00000\.jpg: expected truth of the image's size, 1242 x 300, got 1242 x 375"
    ):
        VirtualKITTI2(write.root)[0]
    with pytest.raises(FileNotFoundError, match=r"expected Scene\*/.* in it, got none"):
        VirtualKITTI2(write.root / FOLDER)
