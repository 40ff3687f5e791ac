"""Python programs in processes that are forked from one that has imported what takes most of them seconds.

Run as a program this file is that process. It needs a single thread, so it cannot import rclpy.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import IO

from lotus2_ros.demo.deadlines import allowed

IMPORTS = "lotus2_ros.inference.loading", "lotus2_ros.model.lotus2.trainable", "lotus2_ros.training.run"
# Code for a program that renders scenes: in forks of its own, which have the imports too.
RENDER_IN_FORKS = """
import multiprocessing
from lotus2_ros.training import rendered
rendered.get_context = lambda _: multiprocessing.get_context("fork")
"""
START = 60.0  # seconds of a quiet machine for these


class Forks:
    """Starts the process to fork from, and programs."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen([sys.executable, __file__], stdin=theirs, env=environment)
        theirs.close()

    def start(self, arguments: list[str], environment: dict[str, str], stdout: IO, stderr: IO) -> Fork:
        """Start a program by the arguments of ``python``: ``-m`` and a module, or ``-c`` and code, and what follows."""
        status, sink = os.pipe()
        request = {"arguments": arguments, "environment": environment, "folder": str(Path.cwd())}
        descriptors = [stdout.fileno(), stderr.fileno(), sink]
        socket.send_fds(self._requests, [json.dumps(request).encode()], descriptors)
        os.close(sink)
        return Fork(status)

    def run(
        self, *arguments: str, seconds: float, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Start a program and wait for its end, at most so many seconds of a quiet machine."""
        with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
            program = self.start([*arguments], os.environ | (environment or {}), stdout, stderr)
            try:
                status = program.wait(allowed(seconds))
            finally:
                program.kill()
            texts = [file.seek(0) or file.read() for file in (stdout, stderr)]
        return subprocess.CompletedProcess(arguments, status, *texts)

    def close(self) -> None:
        self._requests.close()
        self._server.wait(allowed(START))


class Fork:
    """A running program, with the methods of ``Popen`` that tests need."""

    def __init__(self, status: int) -> None:
        self._status = status
        self.returncode: int | None = None
        self.pid = self._read(allowed(START))

    def _read(self, timeout: float) -> int:
        if not select.select([self._status], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("fork", timeout)
        answer = os.read(self._status, 4)
        assert answer, "expected an answer from the process to fork from; it has ended, its stderr says why"
        return int.from_bytes(answer, "big", signed=True)

    def wait(self, timeout: float) -> int:
        if self.returncode is None:
            self.returncode = self._read(timeout)
            os.close(self._status)
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def serve(requests: socket.socket) -> None:
    """Answer requests until the other end is closed; in a fork, run the program that is asked for."""
    for name in IMPORTS:
        importlib.import_module(name)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "expected one thread: others do not live on in a fork"
    gc.freeze()  # or the first collection of each fork copies the memory of all objects
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that supervise
    while (message := socket.recv_fds(requests, 1 << 20, 3))[0]:
        stdout, stderr, status = message[1]
        if os.fork() == 0:
            requests.close()
            supervise(status)
            run(**json.loads(message[0]), stdout=stdout, stderr=stderr)
            return
        for descriptor in message[1]:
            os.close(descriptor)


def supervise(status: int) -> None:
    """Tell the pid of a fork and how it ends; returns in that fork."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid:
        os.write(status, pid.to_bytes(4, "big", signed=True))
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(status, ended.to_bytes(4, "big", signed=True))
        os._exit(0)
    os.close(status)


def run(arguments: list[str], environment: dict[str, str], folder: str, stdout: int, stderr: int) -> None:
    for target, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), stdout, stderr)):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[0] = folder  # in place of this file's
    kind, program, *rest = arguments
    sys.argv = [kind, *rest]
    if kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(program, "<string>", "exec"), main.__dict__)


if __name__ == "__main__":
    serve(socket.socket(fileno=os.dup(0)))
