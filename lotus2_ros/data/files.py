"""The files of a data set, in a folder or in the tar in which it is distributed."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import torch
from torch import Tensor


class Files:
    """Files by their paths in a folder, or in an uncompressed tar, which need not be unpacked.

    Raises FileNotFoundError, ValueError.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._members: dict[str, tuple[int, int]] | None = None  # of a tar: where they begin, how long they are
        if root.is_file():
            try:
                with tarfile.open(root, "r:") as tar:
                    members = [member for member in tar if member.isfile()]
            except tarfile.TarError as error:
                raise ValueError(f"{root}: expected a folder or an uncompressed tar ({error})") from None
            self._members = {str(PurePosixPath(m.name)): (m.offset_data, m.size) for m in members}
        elif not root.is_dir():
            raise FileNotFoundError(f"{root}: expected a folder or an uncompressed tar, got nothing")

    def glob(self, pattern: str) -> list[str]:
        """Sorted paths; raises FileNotFoundError if there are none."""
        if self._members is not None:
            depth = len(PurePosixPath(pattern).parts)
            paths = (PurePosixPath(name) for name in self._members)
            found = [path for path in paths if len(path.parts) == depth and path.match(pattern)]
        else:
            found = [PurePosixPath(path.relative_to(self.root)) for path in self.root.glob(pattern)]
        if not found:
            raise FileNotFoundError(f"{self.root}: expected {pattern} in it, got none")
        return sorted(map(str, found))

    def read(self, name: str) -> bytes:
        if self._members is None:
            return (self.root / name).read_bytes()  # its error names the file
        if name not in self._members:
            raise FileNotFoundError(f"{self.root}: expected {name} in it, found none")
        start, size = self._members[name]
        with self.root.open("rb") as tar:
            tar.seek(start)
            return tar.read(size)

    def read_image(self, name: str) -> Tensor:
        """(H, W, 3) uint8 RGB, as stored; EXIF orientation is not applied, because the ground truth is stored the same
        way."""
        image = self._decode(name, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        return torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))

    def read_depth_png(self, name: str, units_per_meter: float) -> Tensor:
        """(H, W) float32 meters of a 16-bit PNG."""
        units = self._decode(name, cv2.IMREAD_UNCHANGED)
        if units.dtype != np.uint16 or units.ndim != 2:
            raise ValueError(f"{self.root / name}: expected one channel of uint16, got {units.dtype} {units.shape}")
        return torch.from_numpy((units / units_per_meter).astype(np.float32))

    def read_npy(self, name: str) -> np.ndarray:
        try:
            return np.load(io.BytesIO(self.read(name)), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{self.root / name}: expected an array as numpy saves it ({error})") from None

    def read_exr(self, name: str) -> Tensor:
        """(H, W, 3) float32: the channels R, G, B."""
        import OpenEXR  # only two of the data sets have such files

        try:
            with OpenEXR.File(io.BytesIO(self.read(name))) as file:
                channels = {key: channel.pixels for key, channel in file.channels().items()}
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{self.root / name}: not an OpenEXR file (truncated?): {error}") from None
        if "RGB" not in channels:
            raise ValueError(f"{self.root / name}: expected the channels R, G, B, got {', '.join(channels)}")
        return torch.from_numpy(channels["RGB"].astype(np.float32))

    def read_hdf5(self, name: str) -> Tensor:
        """float32: the array "dataset" of one of Hypersim's files."""
        import h5py  # only one of the data sets has such files

        data = io.BytesIO(self.read(name))
        try:
            with h5py.File(data) as file:
                return torch.from_numpy(file["dataset"][:].astype(np.float32))
        except (OSError, KeyError) as error:
            raise ValueError(f'{self.root / name}: expected HDF5 with a "dataset" ({error})') from None

    def _decode(self, name: str, flags: int) -> np.ndarray:
        data = np.frombuffer(self.read(name), np.uint8)
        image = cv2.imdecode(data, flags) if len(data) else None
        if image is None:
            raise ValueError(f"{self.root / name}: not an image that OpenCV reads (truncated?)")
        return image
