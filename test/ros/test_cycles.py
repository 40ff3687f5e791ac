"""Fifty lives of a node: nothing is left of one in the next."""

import gc
import os
from pathlib import Path

import pytest
import rclpy
from rclpy.context import Context
from rclpy.parameter import Parameter

from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.ros.perception import SUCCESS, PerceptionNode

pytestmark = pytest.mark.ros
CYCLES, SETTLED = 50, 10  # the first cycles fill caches
GROWTH_MB = 15.0


def resources() -> tuple[float, int, int]:
    """Memory in MB, threads and open files of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return (
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        len(list(Path("/proc/self/task").iterdir())),
        len(list(Path("/proc/self/fd").iterdir())),
    )


def test_fifty_lifecycle_cycles_leave_nothing_behind(domain, random_bundle):
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    values = {"model.path": str(random_bundle), "model.warm_up": ["none"], "node.autostart": False}
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = PerceptionNode(context=context, parameter_overrides=overrides)
    used = []
    gc.freeze()  # each cleanup collects garbage, and should not look at the rest of this process
    try:
        for _ in range(CYCLES):
            steps = node.trigger_configure, node.trigger_activate, node.trigger_deactivate, node.trigger_cleanup
            assert [step() for step in steps] == [SUCCESS] * len(steps)
            used.append(resources())
    finally:
        gc.unfreeze()
        node.close(timeout=allowed(5.0))
        rclpy.shutdown(context=context)
    (memory, threads, files), (last_memory, last_threads, last_files) = used[SETTLED], used[-1]
    assert last_memory - memory < GROWTH_MB
    assert (last_threads, last_files) == (threads, files)
