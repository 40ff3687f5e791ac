"""SIGINT and SIGTERM, once or again and again, at any moment: exit code 0 or 130, no abort, little CPU, no remains."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from sensor_msgs.msg import Image

from lotus2_ros.demo.deadlines import allowed

pytestmark = pytest.mark.ros
IMAGE = torch.full((36, 52, 3), 128, dtype=torch.uint8)
CPU_SECONDS = 1.0  # for the exit

# Replaces one step of the node by one that does not end before the test does.
BUSY = """
import sys, time
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.sharpening import Sharpening
from lotus2_ros.ros.node import main
def busy(*args, **kwargs):
    print("busy now", flush=True)
    time.sleep(600)
{step} = busy
main()
"""
MOMENTS = {
    "configuring": ("Estimator.warm_up", {}),
    "a frame": ("Estimator.predict", {"model.warm_up": "[none]"}),
    "sharpening": ("Sharpening.step", {"model.warm_up": "[none]", "sharp.period": 0.0}),
}


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def segments(pid: int) -> list[Path]:
    """The segments of shared memory whose lock files a process holds open."""
    opened = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            opened.append(link.readlink())
    locks = [path for path in opened if path.name.startswith(("fastdds_", "fastrtps_")) and "port" not in path.name]
    return [path.with_name(path.name.removesuffix("_el")) for path in locks]


def interrupt(node, *signals: int) -> tuple[int, float]:
    """Exit status and CPU seconds from the first signal on."""
    before = cpu_seconds(node.process.pid)
    for number in signals:
        if node.process.poll() is None:
            node.process.send_signal(number)
        time.sleep(0.05)
    end, spent = time.monotonic() + allowed(20), before
    while node.process.poll() is None:
        assert time.monotonic() < end, "expected the process to end"
        with suppress(FileNotFoundError, ProcessLookupError):
            spent = cpu_seconds(node.process.pid)
        time.sleep(0.01)
    return node.process.returncode, spent - before


def assert_clean(node, *signals: int) -> None:
    status, spent = interrupt(node, *signals)
    assert status in (0, 130), node.output()
    assert spent < CPU_SECONDS
    assert "Traceback" not in node.output() and "terminate" not in node.output()


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("signals", [(signal.SIGINT,) * 3, (signal.SIGTERM,) * 2], ids=["3 SIGINT", "2 SIGTERM"])
def test_while_a_step_does_not_end(start, client, moment, signals):
    step, parameters = MOMENTS[moment]
    node = start(parameters, command=("-c", BUSY.format(step=step)))
    client.subscribe(Image, "disparity/image", "sharp/disparity/image")
    client.repeat(lambda: client.send_frame(IMAGE, 1), lambda: "busy now" in node.output(), moment)
    assert_clean(node, *signals)


def test_while_it_imports(start):
    node = start(
        command=("-c", "from lotus2_ros.ros.node import main; print('started', flush=True); main()"), forked=False
    )
    end = time.monotonic() + allowed(30)
    while "started" not in node.output():
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.5)  # somewhere in its imports, which take seconds
    assert_clean(node, signal.SIGINT)


def test_a_recorder_that_waits_for_a_node(client, domain, tmp_path):
    command = [sys.executable, "-m", "lotus2_ros.ros.recorder", str(tmp_path / "out.mcap")]
    command += ["--node", "nobody", "--timeout", "1000"]
    with subprocess.Popen(command, env={**os.environ, "ROS_DOMAIN_ID": str(domain)}) as recorder:
        try:
            client.until(lambda: "recorder" in client.node.get_node_names(), "recorder")
            held = segments(recorder.pid)
            recorder.send_signal(signal.SIGINT)
            assert recorder.wait(allowed(30)) == 0
        finally:
            recorder.kill()
    assert held and not any(segment.exists() for segment in held)


def test_while_frames_stream(start, client):
    node = start(forked=False)
    client.subscribe(Image, "disparity/image", "sharp/disparity/image")
    image = torch.randint(0, 256, (480, 640, 3), dtype=torch.uint8)
    client.repeat(lambda: client.send_frame(image, 0), lambda: client.received["disparity/image"], "disparity")
    for stamp in range(10, 20):
        client.send_frame(image, stamp)
    held = segments(node.process.pid)
    assert held and all(segment.exists() for segment in held)
    assert_clean(node, signal.SIGINT, signal.SIGINT)
    assert node.process.returncode == 0
    assert not any(segment.exists() for segment in held)
