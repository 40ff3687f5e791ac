"""The process of the perception node: ``python -m lotus2_ros.ros.node``."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from lotus2_ros.ros.interruption import Interruption, leave
from lotus2_ros.surroundings import check_surroundings

CLOSE_TIMEOUT = 0.3  # seconds for the threads to end; a step of the model may take longer


def main(args: list[str] | None = None) -> NoReturn:
    """Run the node until it is interrupted. The process ends in here, without the interpreter's teardown.

    Exit status: 0 after SIGINT, SIGTERM or SIGHUP, 130 if there was no time for an orderly exit, 1 if the node gave up
    after a failure (``node.exit_on_failure``), 2 with one line if it does not start, by a wrong parameter for instance.
    """
    try:
        check_surroundings()
    except OSError as error:
        _refuse(error)
    interruption = Interruption()  # first, because what is imported below takes seconds
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # an image that cannot be decoded is one warning a period
    with frozen_objects():
        import rclpy
        from rclpy.executors import ExternalShutdownException

        from lotus2_ros.config import ConfigError
        from lotus2_ros.config.installed import FASTDDS_PROFILE, fastdds_profile
        from lotus2_ros.model.engine.device import use_threads
        from lotus2_ros.model.progress import show_progress
        from lotus2_ros.ros.executor import ResilientExecutor
        from lotus2_ros.ros.perception import PerceptionNode
        from lotus2_ros.ros.shared_memory import remove_stale_segments
        from lotus2_ros.ros.start import RosStartError, start_ros

    show_progress()
    use_threads(1)  # in this thread; the model thread has its own setting
    os.environ.setdefault(FASTDDS_PROFILE, str(fastdds_profile()))  # or large messages are lost
    remove_stale_segments()
    try:
        start_ros(args)
        node = PerceptionNode()
    except (RosStartError, ConfigError) as error:
        _refuse(error)
    except Exception as error:  # of rclpy, which has many classes of them
        _refuse(RosStartError(f"the node cannot be created: {type(error).__name__}: {error}"))
    executor = ResilientExecutor(node.callback_failed)
    executor.add_node(node)
    interruption.stop = rclpy.try_shutdown
    try:
        node.start()
        executor.spin()
    except ExternalShutdownException:
        pass
    except Exception:  # after a shutdown rclpy's next step may raise errors of any class, because its context is gone
        if rclpy.ok():
            raise
    node.close(CLOSE_TIMEOUT)
    leave(1 if node.gave_up else 0)


def _refuse(error: Exception) -> NoReturn:
    print(f"perception: {' '.join(str(error).split())}", file=sys.stderr)
    leave(2)


@contextmanager
def frozen_objects() -> Iterator[None]:
    """The garbage collector never looks at the objects that this block makes: they stay until the process ends.

    The imports make 300,000 objects: looking at them takes 0.25 of their 1.8 CPU seconds, and time of every full
    collection while the node runs.
    """
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


if __name__ == "__main__":
    main()
