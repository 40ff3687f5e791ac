"""What the signals' thread does while the main thread or the orderly exit does not go on."""

import os
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
def test_the_process_ends_whatever_blocks(situation, signals, number=signal.SIGINT):
    stop, main = SITUATIONS[situation]
    with subprocess.Popen([sys.executable, "-c", STUCK.format(stop=stop, main=main)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and select.select([child.stdout], [], [], allowed(60))[0]
        assert child.stdout.readline() == b"ready\n"
        for _ in range(signals):
            child.send_signal(number)
        try:
            assert child.wait(allowed(30)) == 130
        finally:
            child.kill()


def test_a_closed_terminal_ends_the_process_in_order():
    test_the_process_ends_whatever_blocks("nothing to stop yet", 1, signal.SIGHUP)


def test_nohup_holds():
    program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)" + STUCK.format(
        stop="None", main="import os; os.kill(os.getpid(), signal.SIGHUP); time.sleep(0.1); os._exit(7)"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, timeout=allowed(60)).returncode == 7
    )


COMPUTING = """
import hashlib
def compute():
    while True:
        hashlib.sha256(bytes(10**6))  # without Python's lock
for _ in range(8):
    threading.Thread(target=compute, daemon=True).start()
threading.Event().wait()
"""


def test_a_process_that_computes_ends_within_a_second_of_cpu():
    program = STUCK.format(stop=FOREVER, main=COMPUTING)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None and select.select([child.stdout], [], [], allowed(60))[0]
            os.kill(child.pid, signal.SIGINT)
            _, status, usage = os.wait4(child.pid, 0)
        finally:
            child.kill()
    assert os.waitstatus_to_exitcode(status) == 130
    assert usage.ru_utime + usage.ru_stime < 1.2  # 0.1 s to start
