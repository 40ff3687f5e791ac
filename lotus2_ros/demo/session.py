"""The node, a player and a recorder, each in its own process, connected by DDS."""

from __future__ import annotations

import ctypes
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lotus2_ros.bags.writer import INPUT_TOPICS, duration
from lotus2_ros.config.errors import RunError
from lotus2_ros.config.installed import FASTDDS_PROFILE, fastdds_profile
from lotus2_ros.config.names import NODE
from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.demo.progress import DemoProgress

if TYPE_CHECKING:
    from typing_extensions import Self

START_TIMEOUT = 180.0  # seconds until the node is active: a large model takes its time to load
QUIET = 20.0  # seconds without any report after the last image: nothing more will come
STOP_TIMEOUT = 10.0
LITTLE_SPACE = 1 << 16  # bytes
PR_SET_PDEATHSIG = 1  # of Linux's prctl.h
LIBC = ctypes.CDLL(None)


class SessionError(RunError):
    """A process of the session failed. The message names it and has the last lines of its log."""


def record_node(source: Path, target: Path, *, frames: int, rate: float, parameters: Sequence[str], logs: Path) -> None:
    """Play the bag ``source`` into a node and record everything it reads and publishes into ``target``.

    ``parameters`` are ``name:=value`` of the node, ``frames`` the number of images in the bag; the processes' logs go
    to the folder ``logs``. Raises SessionError; whatever happens, no process is left behind.
    """
    # A best-effort reader misses what is sent before it knows the writer, and a recording may be a single frame.
    reliable = [f"qos_overrides.{topic}.subscription.reliability:=reliable" for topic in INPUT_TOPICS]
    node_arguments = [part for parameter in (*reliable, *parameters) for part in ("-p", parameter)]
    with Session(logs) as session, DemoProgress(frames) as progress:
        session.start("node", "lotus2_ros.ros.node", "--ros-args", *node_arguments)
        timeout = ("--timeout", str(allowed(START_TIMEOUT)))
        session.start("recorder", "lotus2_ros.ros.recorder", str(target), "--node", NODE, *timeout)
        # Two subscribers on every topic: the node, which is then active, and the recorder, which is then listening.
        pace = ("--rate", str(rate), "--subscribers", "2")
        session.start("player", "lotus2_ros.ros.player", str(source), *pace, *timeout)
        follow(session, progress, duration(source) / rate)
        # The recorder first, so that it has all that the others sent.
        session.stop("recorder")


def follow(session: Session, progress: DemoProgress, play_time: float) -> None:
    """Wait until the core predictor and the sharpener have answered the last image, or no more reports come.

    No newer image replaces the last one, so the node answers it unless it was lost on the way or rejected.
    ``play_time`` in seconds.
    """
    played = False
    newest: dict[str, int] = {}  # stamps, by what was done with the frame
    since, patience = time.monotonic(), START_TIMEOUT
    while not (played and newest.get("frame") == newest.get("core") == newest.get("sharpener")):
        event = session.next_event(timeout=0.5)
        if event is None:
            if time.monotonic() - since < allowed(patience):
                continue
            if not played:
                raise session.stuck("player", "did not finish in time")
            return
        played = played or event["event"] == "played"
        since, patience = time.monotonic(), QUIET if played else play_time + QUIET
        if event["event"] == "frame":
            newest["frame"] = event["stamp_ns"]
            progress.sent(event["count"])
        elif event["event"] == "report":
            newest[event["stage"]] = event["stamp_ns"]
            progress.answered(event["counters"])


def _end_with_parent() -> None:
    """In a child: end when the parent does, in any way, even by SIGKILL or with its terminal.

    Not by SIGINT, which a child ignores if a shell without job control started its parent in the background.
    """
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Session:
    """Child processes in their own DDS domain. Their lines on stdout are events. They end with the block."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: dict[str, subprocess.Popen] = {}
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        # Below 102 a domain's ports are not in the range that Linux gives to other programs.
        domain = os.environ.get("ROS_DOMAIN_ID", str(1 + os.getpid() % 101))
        self._environment = {
            **os.environ,
            "ROS_DOMAIN_ID": domain,
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            FASTDDS_PROFILE: str(fastdds_profile()),
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",  # of stuck()
        }

    def __enter__(self) -> Self:
        # SIGTERM would end the parent without its children: unwind as on Ctrl-C.
        self._handler = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        return self

    def start(self, name: str, module: str, *arguments: str) -> None:
        """Run ``python -m module arguments``; stderr goes to its log."""
        with (self._logs / f"{name}.log").open("w") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], env=self._environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=log, text=True, preexec_fn=_end_with_parent,
            )  # fmt: skip
        self._children[name] = child
        threading.Thread(target=self._listen, args=(child,), daemon=True).start()

    def _listen(self, child: subprocess.Popen) -> None:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith('{"event"'):
                self._events.put(json.loads(line))

    def next_event(self, timeout: float) -> dict[str, Any] | None:
        """The next event of any child, None if there is none in time. Raises SessionError when a child has ended."""
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            for name, child in self._children.items():
                if child.poll() is not None:
                    raise self._ended(name, child) from None
            return None

    def _ended(self, name: str, child: subprocess.Popen) -> SessionError:
        full = shutil.disk_usage(self._logs).free < LITTLE_SPACE
        reason = f": no space is left on the disk of {self._logs}" if full else ""  # not even for the log
        return SessionError(f"the {name} ended with status {child.returncode}{reason}{self.tail(name)}")

    def stuck(self, name: str, what: str) -> SessionError:
        """The error of a child that does not go on, with the stack of every child: Python prints it on SIGABRT."""
        running = [child for child in self._children.values() if child.poll() is None]
        for child in running:
            child.send_signal(signal.SIGABRT)
        for child in running:
            with suppress(subprocess.TimeoutExpired):
                child.wait(allowed(STOP_TIMEOUT))
        return SessionError(f"the {name} {what}{self.tail(name, lines=60)}")

    def tail(self, name: str, lines: int = 12) -> str:
        """The last lines of this child's log, then of the others: a child that waits for another does not know why."""
        names = dict.fromkeys((name, *self._children))
        logs = {n: (self._logs / f"{n}.log").read_text(errors="replace").splitlines()[-lines:] for n in names}
        return "".join(f"\n--- last lines of {self._logs / n}.log:\n" + "\n".join(text) for n, text in logs.items())

    def stop(self, name: str) -> None:
        """Interrupt a child and wait; kill it if it does not end. Raises SessionError if it does not end well."""
        child = self._children.pop(name)
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
        try:
            child.wait(allowed(STOP_TIMEOUT))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise SessionError(
                f"the {name} did not end within {allowed(STOP_TIMEOUT):.0f} s{self.tail(name)}"
            ) from None
        if child.returncode:
            raise self._ended(name, child)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for child in self._children.values():
                if child.poll() is None:
                    child.send_signal(signal.SIGINT)
            deadline = time.monotonic() + allowed(STOP_TIMEOUT)
            for child in self._children.values():
                try:
                    child.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
        finally:
            signal.signal(signal.SIGTERM, self._handler)
