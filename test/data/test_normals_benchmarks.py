"""DSINE's files, whose axes are x left, y up, z toward the camera, come out in the optical frame."""

import numpy as np
import pytest
import torch

from lotus2_ros.data.normals_benchmarks import IBims1Normals, NYUv2Normals, ScanNetNormals, SintelNormals

K = np.array([[60.0, 0, 4], [0, 50, 11], [0, 0, 1]])
# As stored: a wall that faces the camera, a floor, a wall on the right of the camera, nothing.
STORED = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0]], np.float32)
OPTICAL = torch.tensor([[0.0, 0, -1], [0, -1, 0], [-1, 0, 0], [torch.nan] * 3])


@pytest.mark.parametrize(("reader", "base"), [(NYUv2Normals, "test/000000"), (ScanNetNormals, "scene0532_00/000450")])
def test_normals_in_eight_bits(write, reader, base):
    color = np.where(STORED.any(-1, keepdims=True), np.round((STORED + 1) * 127.5), 0).astype(np.uint8)
    write.plain(f"{base}_img.png", 3, 4)
    write.rgb(f"{base}_normal.png", np.tile(color, (3, 1, 1)))
    write.npy(f"{base}_intrins.npy", K)
    (sample,) = reader(write.root)
    assert sample.name == base and sample.depth is None and sample.K.tolist() == K.tolist()
    torch.testing.assert_close(sample.normals, OPTICAL.expand(3, 4, 3), atol=6e-3, rtol=0, equal_nan=True)
    lengths = sample.normals[:, :3].norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones(3, 3))


@pytest.mark.parametrize(
    ("reader", "base"), [(IBims1Normals, "ibims/corridor_01"), (SintelNormals, "alley_1/frame_0001")]
)
def test_normals_in_floats(write, reader, base):
    write.plain(f"{base}_img.png", 3, 4)
    write.exr(f"{base}_normal.exr", np.tile(STORED * 0.9, (3, 1, 1)))  # not quite unit
    write.npy(f"{base}_intrins.npy", K)
    (sample,) = reader(write.root)
    assert sample.name == base
    torch.testing.assert_close(sample.normals, OPTICAL.expand(3, 4, 3), equal_nan=True)


def test_refused(write):
    write.plain("test/000000_img.png", 3, 4)
    write.plain("test/000000_normal.png", 3, 5)
    write.npy("test/000000_intrins.npy", K[:2])
    with pytest.raises(ValueError, match=r"000000_intrins\.npy: expected intrinsics \(3, 3\), got \(2, 3\)"):
        NYUv2Normals(write.root)[0]
    write.npy("test/000000_intrins.npy", K)
    with pytest.raises(ValueError, match=r"000000_img\.png: expected truth of the image's size, 4 x 3, got 5 x 3"):
        NYUv2Normals(write.root)[0]
