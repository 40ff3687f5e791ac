"""The programs that a benchmark of the node starts, in a ROS domain of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from lotus2_ros.config.installed import FASTDDS_PROFILE, fastdds_profile
from lotus2_ros.demo.deadlines import allowed


def isolate() -> None:
    """This process and those it starts talk to nobody else over ROS, unless the environment says otherwise."""
    os.environ.setdefault(FASTDDS_PROFILE, str(fastdds_profile()))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 101))


@contextmanager
def program(*arguments: str) -> Iterator[subprocess.Popen]:
    """Python with these arguments; ends with the block, by SIGINT if it can."""
    child = subprocess.Popen([sys.executable, *arguments])
    try:
        yield child
    finally:
        child.send_signal(signal.SIGCONT)
        child.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(allowed(10.0))
        child.kill()


def node(parameters: Mapping[str, object]) -> tuple[str, ...]:
    """The arguments of `program` for the perception node with these parameters."""
    given = (word for name, value in parameters.items() for word in ("-p", f"{name}:={value}"))
    return ("-m", "lotus2_ros.ros.node", "--ros-args", *given)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, of all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
