"""What the signals' thread does while the main thread or the orderly exit does not go on."""

import select
import signal
import subprocess
import sys

import pytest

from lotus2_ros.demo.deadlines import allowed

STUCK = """
import sys, threading, time
from lotus2_ros.ros.interruption import Interruption
interruption = Interruption()
interruption.stop = {stop}
print("ready", flush=True)
{main}
"""
FOREVER = "threading.Event().wait"
SITUATIONS = {
    "nothing to stop yet": ("None", f"{FOREVER}()"),
    "the orderly exit blocks": (FOREVER, f"{FOREVER}()"),
    "the orderly exit fails": ("lambda: 1 / 0", f"{FOREVER}()"),
    "nobody reads what it prints": ("lambda: None", "while True: sys.stdout.write('x' * 4096)"),
}


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("signals", [1, 3])
def test_the_process_ends_whatever_blocks(situation, signals):
    stop, main = SITUATIONS[situation]
    with subprocess.Popen([sys.executable, "-c", STUCK.format(stop=stop, main=main)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and select.select([child.stdout], [], [], allowed(60))[0]
        assert child.stdout.readline() == b"ready\n"
        for _ in range(signals):
            child.send_signal(signal.SIGINT)
        try:
            assert child.wait(allowed(30)) == 130
        finally:
            child.kill()
