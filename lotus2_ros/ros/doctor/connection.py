"""Checks of how the programs of this machine reach each other: middleware, network, shared memory.

They run without ROS: to import rclpy with a middleware that is not installed ends the process.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

from lotus2_ros.config import Config
from lotus2_ros.config.installed import AMPLE, FASTDDS_PROFILE, SHARED_MEMORY, fastdds_profile
from lotus2_ros.ros.doctor.findings import Checks, Finding, hint, ok, wrong

FAST_DDS = "rmw_fastrtps_cpp"
DEFAULT_SEGMENT = 512 * 1024  # bytes of shared memory that Fast DDS has without a profile


def check_network(config: Config) -> Iterator[Finding]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.sendto(b"", ("127.0.0.1", 9))
        except OSError as error:
            expected = "the loopback interface, by which programs of this machine find each other"
            yield wrong(f"no network interface is up: {error.strerror}", expected, "ip link set lo up")
        else:
            yield ok("the loopback interface is up")


def check_shared_memory(config: Config) -> Iterator[Finding]:
    mend = "start the container with --ipc=host or --shm-size=1g, or mount -o remount,size=1g /dev/shm"
    if not SHARED_MEMORY.is_dir():
        yield wrong(f"no {SHARED_MEMORY}", "shared memory for images between processes", mend)
        return
    usage = shutil.disk_usage(SHARED_MEMORY)
    text = f"{SHARED_MEMORY} of {usage.total / 2**20:.0f} MB, {usage.free / 2**20:.0f} MB free"
    needed = segment_size(fastdds_profile())
    if usage.free < needed:
        expected = f"{needed / 2**20:.0f} MB free for each process"
        yield wrong(text, expected, f"{mend}; fastdds shm clean removes what crashed processes left")
    elif usage.total < AMPLE:
        yield hint(text, f"{AMPLE / 2**20:.0f} MB for several processes with large images", mend)
    else:
        yield ok(text)


def check_profile(config: Config) -> Iterator[Finding]:
    """Of this shell: what is started from it inherits the profile."""
    if os.environ.get("RMW_IMPLEMENTATION", FAST_DDS) != FAST_DDS:
        return
    problem = profile_problem(os.environ)
    mend = f"export {FASTDDS_PROFILE}={fastdds_profile()} before you start the camera driver"
    if not problem:
        yield ok(f"{FASTDDS_PROFILE}={os.environ[FASTDDS_PROFILE]}")
    elif FASTDDS_PROFILE in os.environ:
        yield wrong(problem, "segments of shared memory that hold an image", mend)
    else:
        yield hint(f"{problem} in this shell; the node sets it for itself", "it in the camera driver's shell too", mend)


def profile_problem(environment: Mapping[str, str]) -> str:
    """Why Fast DDS loses large messages with this environment; empty if it does not."""
    name = environment.get(FASTDDS_PROFILE)
    if not name:
        return f"{FASTDDS_PROFILE} is not set"
    try:
        size = segment_size(Path(name))
    except (OSError, ElementTree.ParseError, ValueError) as error:
        return f"{FASTDDS_PROFILE}={name} cannot be read ({error})"
    if size <= DEFAULT_SEGMENT:
        return f"{FASTDDS_PROFILE}={name} has shared memory segments of {size / 2**20:g} MB"
    return ""


def segment_size(profile: Path) -> int:
    """Bytes of the largest shared memory segment in a profile of Fast DDS; 0 if it sets none."""
    tags = ElementTree.parse(profile).iter()
    return max((int(tag.text or 0) for tag in tags if tag.tag.rpartition("}")[2] == "segment_size"), default=0)


def check_middleware(config: Config) -> Iterator[Finding]:
    name = os.environ.get("RMW_IMPLEMENTATION", "")
    if name in ("", FAST_DDS):
        yield ok(name or f"RMW_IMPLEMENTATION is not set: {FAST_DDS} by default")
    elif problem := _import_problem():
        package = f"ros-{os.environ.get('ROS_DISTRO', 'DISTRO')}-{name.replace('_', '-')}"
        advice = f"unset RMW_IMPLEMENTATION, or apt install {package}"
        yield wrong(f"RMW_IMPLEMENTATION={name} does not load: {problem}", FAST_DDS, advice)
    else:
        advice = f"export RMW_IMPLEMENTATION={FAST_DDS} for all programs, or set the middleware up for large messages"
        yield hint(f"RMW_IMPLEMENTATION is {name}", f"{FAST_DDS}, which was tested", advice)


def _import_problem() -> str:
    """Why rclpy cannot be imported, in a process of its own; empty if it can."""
    tried = subprocess.run([sys.executable, "-c", "import rclpy"], capture_output=True, text=True, errors="replace")
    return "" if tried.returncode == 0 else (tried.stderr.strip().splitlines() or [f"status {tried.returncode}"])[-1]


CONNECTION: Checks[Config] = {
    "network": check_network,
    "shared memory": check_shared_memory,
    "fast dds profile": check_profile,
    "middleware": check_middleware,
}
