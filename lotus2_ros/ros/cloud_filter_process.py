"""Downsamples clouds to voxels and removes outliers with open3d, in a process of its own.

It is no thread, because open3d holds the GIL while it works and would stop all other threads for a second at a time.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys

import numpy as np

REQUEST = struct.Struct("<qdqd")  # points, voxel size, neighbors, deviation
ANSWER = struct.Struct("<q")  # points
POINT = 4  # float32 each: x, y, z, rgb
NO_OPEN3D = 3  # exit status
NICENESS = 10  # frames have priority


class Open3dMissingError(ImportError):
    """open3d cannot be imported."""


class CloudFilterProcess:
    """The filter process. It starts with the first cloud."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, cloud: np.ndarray, voxel_size: float, neighbors: int, deviation: float) -> np.ndarray:
        """Filter points (N, 4) float32, all finite: x, y, z, and rgb packed as in PointCloud2.

        First the points of each voxel of ``voxel_size`` meters are replaced by their mean (0: no downsampling). Then
        points are removed whose mean distance to their ``neighbors`` nearest neighbors is more than ``deviation``
        standard deviations above the average (neighbors 0: none). Raises Open3dMissingError without open3d,
        RuntimeError if the process ends.
        """
        if self._process is None:
            self._process = _start()
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None and sink is not None  # pipes
        try:
            sink.write(REQUEST.pack(len(cloud), voxel_size, neighbors, deviation))
            sink.write(cloud.astype(np.float32).tobytes())
            sink.flush()
        except BrokenPipeError:  # the exit status says why
            pass
        answer = source.read(ANSWER.size)
        if len(answer) < ANSWER.size:
            status = self._process.wait()
            if status == NO_OPEN3D:
                raise Open3dMissingError("open3d does not load")
            raise RuntimeError(f"the process that filters clouds ended with status {status}")
        count = ANSWER.unpack(answer)[0]
        return np.frombuffer(source.read(count * POINT * 4), np.float32).reshape(count, POINT)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()
            self._process = None


def filter_cloud(cloud: np.ndarray, voxel_size: float, neighbors: int, deviation: float) -> np.ndarray:
    """The same as :class:`CloudFilterProcess`, in this process."""
    import open3d as o3d

    if not len(cloud):
        return cloud
    bits = np.ascontiguousarray(cloud[:, 3]).view(np.uint32)
    colors = np.stack([bits >> shift & 255 for shift in (16, 8, 0)], axis=-1).astype(np.float32)
    points = o3d.t.geometry.PointCloud(o3d.core.Tensor(np.ascontiguousarray(cloud[:, :3])))
    points.point.colors = o3d.core.Tensor(colors)
    if voxel_size > 0:
        points = points.voxel_down_sample(voxel_size)
    if neighbors > 0:
        points, _ = points.remove_statistical_outliers(neighbors, deviation)
    red, green, blue = points.point.colors.numpy().round().astype(np.uint32).T
    packed = (red << 16 | green << 8 | blue).view(np.float32)
    return np.column_stack((points.point.positions.numpy(), packed)).astype(np.float32)


def main() -> int:
    """Answer requests on standard input until it is closed."""
    # open3d prints to standard output, so answers get a descriptor of their own.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.nice(NICENESS)
    try:
        import open3d  # noqa: F401
    except (ImportError, OSError) as error:
        print(f"open3d: {error}", file=sys.stderr)
        return NO_OPEN3D
    requests = sys.stdin.buffer
    while len(header := requests.read(REQUEST.size)) == REQUEST.size:
        count, *options = REQUEST.unpack(header)
        if len(points := requests.read(count * POINT * 4)) < count * POINT * 4:
            break  # the node ended while it was writing
        filtered = filter_cloud(np.frombuffer(points, np.float32).reshape(count, POINT), *options)
        try:
            answers.write(ANSWER.pack(len(filtered)) + filtered.tobytes())
            answers.flush()
        except BrokenPipeError:  # the node has ended
            return 0
    return 0


def _start() -> subprocess.Popen[bytes]:
    # A session of its own, so that Ctrl-C reaches the node only. The process ends when the node closes its input.
    return subprocess.Popen(
        [sys.executable, "-m", "lotus2_ros.ros.cloud_filter_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


if __name__ == "__main__":
    sys.exit(main())
