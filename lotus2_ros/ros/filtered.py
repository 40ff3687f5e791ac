"""The filtered clouds' thread, beside those of the model and the sender."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from torch import Tensor

from lotus2_ros.config import CloudConfig
from lotus2_ros.ros.cloud_filter import CloudFilterProcess, MissingError
from lotus2_ros.ros.clouds import tensor_to_cloud
from lotus2_ros.ros.threads import LatestQueue


class Cloud(NamedTuple):
    """What is to be filtered: rows of a cloud (H, W, 4 or more), as organized_cloud makes them, and their header."""

    stage: str
    packed: Tensor
    header: Header


class CloudFilterThread:
    """The thread that filters the newest cloud of each stage, at most one every ``cloud.filter_period`` seconds.

    Nobody waits for it: a cloud that comes while it works replaces the one before. ``publish`` sends one result;
    ``missing`` is called once, with the reason, if open3d does not load, and no cloud is wanted any more; ``failed`` is
    called with the exception that ended the thread. Both in this thread.
    """

    def __init__(
        self,
        publish: Callable[[str, PointCloud2], None],
        config: Callable[[], CloudConfig],
        missing: Callable[[str], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._publish = publish
        self._config = config
        self._missing = missing
        self._failed = failed
        self._queue: LatestQueue[Cloud] = LatestQueue()
        self._last: dict[str, float] = {}  # by stage, by the steady clock
        self._ended = False
        self._thread = threading.Thread(target=self._guarded, name="filter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Finish the cloud under way and end the thread; False if that took longer than ``timeout`` seconds."""
        self._queue.close()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def is_due(self, stage: str) -> bool:
        """Whether a cloud of this stage is worth making now."""
        since = time.monotonic() - self._last.get(stage, -float("inf"))
        return not self._ended and since >= self._config().filter_period

    def put(self, cloud: Cloud) -> None:
        """Leave a cloud, on the host, to be filtered."""
        self._last[cloud.stage] = time.monotonic()
        self._queue.put(cloud.stage, cloud)

    def _guarded(self) -> None:
        filter_cloud = CloudFilterProcess()
        try:
            self._run(filter_cloud)
        except MissingError as error:
            self._missing(str(error))
        except Exception as error:  # the thread's last act: hand whatever happened to the owner
            self._failed(error)
        finally:
            self._ended = True
            filter_cloud.close()

    def _run(self, filter_cloud: CloudFilterProcess) -> None:
        while (cloud := self._queue.take(timeout=None)) is not None:
            config = self._config()
            rows = cloud.packed.flatten(0, 1)[:, :4]
            rows = rows[torch.isfinite(rows[:, :3]).all(dim=-1)]
            found = filter_cloud(
                rows.numpy(), config.voxel_size, config.outlier_neighbors, config.outlier_deviation
            )  # fmt: skip
            self._publish(cloud.stage, tensor_to_cloud(torch.tensor(found)[None], cloud.header))
