"""Files in a folder and in a tar, and what is said of those that are not as they should be."""

import pickle
import tarfile

import numpy as np
import pytest
import torch

from lotus2_ros.data.files import Files


def tar_of(folder, path, mode="w"):
    with tarfile.open(path, mode) as tar:
        for file in sorted(folder.rglob("*")):
            tar.add(file, f"./{file.relative_to(folder)}", recursive=False)
    return path


@pytest.fixture(params=["folder", "tar"])
def files(request, write, tmp_path_factory):
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    write.rgb("b/image_1.png", image)
    write.rgb("a/image_2.png", image + 1)
    write.png16("a/deeper/image_3.png", np.arange(24).reshape(4, 6) * 1000)
    write.npy("a/values.npy", np.eye(3))
    if request.param == "folder":
        return Files(write.root)
    return Files(tar_of(write.root, tmp_path_factory.mktemp("tar") / "set.tar"))


def test_same_in_a_folder_and_in_a_tar(files):
    assert files.glob("*/image_*.png") == ["a/image_2.png", "b/image_1.png"]
    image = files.read_image("b/image_1.png")
    assert image.shape == (4, 6, 3) and image.dtype == torch.uint8 and image[0, 1].tolist() == [3, 4, 5]
    depth = files.read_depth_png("a/deeper/image_3.png", 1000)
    assert depth.dtype == torch.float32 and depth[1].tolist() == [6, 7, 8, 9, 10, 11]
    assert (files.read_npy("a/values.npy") == np.eye(3)).all()
    assert pickle.loads(pickle.dumps(files)).read("a/values.npy") == files.read("a/values.npy")


def test_what_is_missing_is_named(files):
    with pytest.raises(FileNotFoundError, match=r"expected c/\*\.png in it, got none"):
        files.glob("c/*.png")
    with pytest.raises(FileNotFoundError, match=r"a/none\.png"):
        files.read_image("a/none.png")


def test_an_image_is_not_turned(write):
    """Cameras write how they were held; truth is stored as the sensor saw it."""
    write.plain("upright.jpg", 8, 16)
    data = (write.root / "upright.jpg").read_bytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"  # orientation 6: on its side
    (write.root / "turned.jpg").write_bytes(
        data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]
    )
    assert Files(write.root).read_image("turned.jpg").shape == (8, 16, 3)


@pytest.mark.parametrize(
    ("name", "read", "message"),
    [
        ("short.png", lambda files, name: files.read_image(name), "not an image that OpenCV reads"),
        ("empty.png", lambda files, name: files.read_image(name), "not an image that OpenCV reads"),
        (
            "color.png",
            lambda files, name: files.read_depth_png(name, 256),
            r"expected one channel of uint16, got uint8",
        ),
        ("short.npy", lambda files, name: files.read_npy(name), "expected an array as numpy saves it"),
        ("objects.npy", lambda files, name: files.read_npy(name), "expected an array as numpy saves it"),
        ("short.exr", lambda files, name: files.read_exr(name), "not an OpenEXR file"),
        ("short.hdf5", lambda files, name: files.read_hdf5(name), 'expected HDF5 with a "dataset"'),
    ],
)
def test_a_damaged_file_is_named(write, name, read, message):
    write.plain("color.png", 4, 6)
    write.plain("short.png", 4, 6)
    write.npy("short.npy", np.eye(3))
    write.npy("objects.npy", np.array([{}]))
    write.exr("short.exr", np.ones((4, 6, 3)))
    write.hdf5("short.hdf5", np.ones((4, 6)))
    for file in write.root.glob("short.*"):
        file.write_bytes(file.read_bytes()[:-20])
    write.path("empty.png").write_bytes(b"")
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        read(Files(write.root), name)


def test_only_a_folder_or_a_plain_tar(write, tmp_path_factory):
    write.plain("a.png", 4, 6)
    compressed = tar_of(write.root, tmp_path_factory.mktemp("tar") / "set.tar.gz", "w:gz")
    with pytest.raises(ValueError, match=r"set\.tar\.gz: expected a folder or an uncompressed tar"):
        Files(compressed)
    with pytest.raises(FileNotFoundError, match="expected a folder or an uncompressed tar, got nothing"):
        Files(write.root / "none")
