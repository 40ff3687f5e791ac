"""The thread that filters clouds, besides those of the model and the sender."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from torch import Tensor

from lotus2_ros.config import CloudConfig
from lotus2_ros.config.live import LiveConfig
from lotus2_ros.ros.cloud_filter_process import CloudFilterProcess, Open3dMissingError
from lotus2_ros.ros.clouds import CLOUD_FIELDS, tensor_to_cloud
from lotus2_ros.ros.threads import LatestQueue, QueueThread

MAX_DOUBLINGS = 4  # of the size of voxels where depth is less sure


class UnfilteredCloud(NamedTuple):
    """Rows of a cloud (H, W, 4 or more) on the host, as organized_cloud makes them, and their header."""

    stage: str
    rows: Tensor
    header: Header


class CloudFilterThread(QueueThread[UnfilteredCloud]):
    """The thread that filters the newest cloud of each stage, at most one every ``cloud.filter_period`` seconds.

    ``publish`` publishes one result. ``missing`` is called once, with the reason, if open3d cannot be imported; then no
    cloud is due any more. Both are called in this thread.
    """

    name = "filter"

    def __init__(
        self,
        publish: Callable[[str, PointCloud2], None],
        config: LiveConfig,
        missing: Callable[[str], None],
        failed: Callable[[Exception], None],
    ) -> None:
        super().__init__(LatestQueue(), failed)
        self._publish = publish
        self._config = config
        self._missing = missing
        self._last: dict[str, float] = {}  # time of the last cloud by stage, by the steady clock
        self._ended = False
        self._process = CloudFilterProcess()

    def is_due(self, stage: str) -> bool:
        """Whether a new cloud of this stage would be filtered now; called in the model thread."""
        since = time.monotonic() - self._last.get(stage, -float("inf"))
        return not self._ended and since >= self._config.current.cloud.filter_period

    def put(self, cloud: UnfilteredCloud) -> None:
        """Queue a cloud; called in the sender thread."""
        self._last[cloud.stage] = time.monotonic()
        self.queue.put(cloud.stage, cloud)

    def _run(self) -> None:
        try:
            super()._run()
        except Open3dMissingError as error:
            self._missing(str(error))
        finally:
            self._ended = True
            self._process.close()

    def _handle(self, cloud: UnfilteredCloud) -> None:
        config = self._config.current.cloud
        rows = cloud.rows.flatten(0, 1)
        rows = rows[torch.isfinite(rows[:, :3]).all(dim=-1)]
        filtered = [
            self._process(rows[chosen, :4].numpy(), voxel_size, config.outlier_neighbors, config.outlier_deviation)
            for voxel_size, chosen in by_voxel_size(rows, config)
        ]
        self._publish(cloud.stage, tensor_to_cloud(torch.from_numpy(np.concatenate(filtered))[None], cloud.header))


def by_voxel_size(rows: Tensor, config: CloudConfig) -> list[tuple[float, Tensor]]:
    """Voxel sizes, and the rows (N,) bool that each is for, by their sigma if they have it."""
    size, has_sigma = config.voxel_size, CLOUD_FIELDS[rows.shape[1]][-1] == "sigma"
    if not (has_sigma and len(rows) and size > 0 and config.voxel_sigma > 0):
        return [(size, torch.ones(len(rows), dtype=torch.bool))]
    doublings = (config.voxel_sigma * rows[:, -1] / size).log2().ceil().clamp(0, MAX_DOUBLINGS)
    return [(size * 2.0 ** int(number), doublings == number) for number in doublings.unique()]
