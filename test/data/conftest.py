"""Files in the formats of the data sets, written as their makers' tools do."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import OpenEXR
import pytest


class Writer:
    """Writes files into a folder, by their path in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def rgb(self, name: str, image: np.ndarray) -> None:
        assert cv2.imwrite(str(self.path(name)), image[..., ::-1])

    def plain(self, name: str, height: int, width: int, color: tuple[int, int, int] = (10, 120, 240)) -> None:
        """One color, which also JPEG keeps."""
        self.rgb(name, np.full((height, width, 3), color, np.uint8))

    def png16(self, name: str, values: np.ndarray) -> None:
        assert cv2.imwrite(str(self.path(name)), values.astype(np.uint16))

    def npy(self, name: str, values: np.ndarray) -> None:
        np.save(self.path(name), values)

    def exr(self, name: str, values: np.ndarray) -> None:
        channels = {letter: np.ascontiguousarray(values[..., i], np.float32) for i, letter in enumerate("RGB")}
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, channels).write(str(self.path(name)))

    def hdf5(self, name: str, values: np.ndarray) -> None:
        with h5py.File(self.path(name), "w") as file:
            file.create_dataset("dataset", data=values.astype(np.float16), compression="gzip")


@pytest.fixture
def write(tmp_path) -> Writer:
    return Writer(tmp_path)
