"""CPU time of the node's process: start, idle without subscribers, exit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from benchmarks.programs import cpu_seconds

IDLE = 20.0  # seconds


def main() -> int:
    node = subprocess.Popen([sys.executable, "-m", "lotus2_ros.ros.node"], stderr=subprocess.PIPE, text=True)
    assert node.stderr is not None
    for line in node.stderr:
        if "ready after" in line:
            break
    time.sleep(2.0)
    start = cpu_seconds(node.pid)
    time.sleep(IDLE)
    idle = cpu_seconds(node.pid) - start
    node.send_signal(signal.SIGINT)
    _, status, usage = os.wait4(node.pid, 0)
    total = usage.ru_utime + usage.ru_stime
    print(f"start until active: {start:.1f} s of CPU")
    print(f"idle: {100 * idle / IDLE:.2f} % of a core")
    print(f"exit: {total - start - idle:.2f} s of CPU, status {os.waitstatus_to_exitcode(status)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
