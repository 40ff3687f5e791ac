"""The thread that filters clouds, besides those of the model and the sender."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from torch import Tensor

from lotus2_ros.config.live import LiveConfig
from lotus2_ros.ros.cloud_filter import CloudFilterProcess, Open3dMissingError
from lotus2_ros.ros.clouds import tensor_to_cloud
from lotus2_ros.ros.threads import LatestQueue, QueueThread


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
        """Whether a new cloud of this stage would be filtered now."""
        since = time.monotonic() - self._last.get(stage, -float("inf"))
        return not self._ended and since >= self._config.current.cloud.filter_period

    def put(self, cloud: UnfilteredCloud) -> None:
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
        points = cloud.rows.flatten(0, 1)[:, :4]
        points = points[torch.isfinite(points[:, :3]).all(dim=-1)]
        filtered = self._process(
            points.numpy(), config.voxel_size, config.outlier_neighbors, config.outlier_deviation
        )  # fmt: skip
        self._publish(cloud.stage, tensor_to_cloud(torch.tensor(filtered)[None], cloud.header))
