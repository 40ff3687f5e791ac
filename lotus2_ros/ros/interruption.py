"""Ends the process on SIGINT, SIGTERM and SIGHUP, however busy it is."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

GRACE = 1.0  # seconds for an orderly exit
CPU_GRACE = 0.8  # seconds of CPU for it: a compilation goes on in all its threads
INTERRUPTED = 130


class Interruption:
    """Calls ``stop`` on the first signal, and ends the process if it is still running GRACE seconds later, or when it
    has spent CPU_GRACE.

    Python runs signal handlers in the main thread only, between two bytecodes. While that thread compiles a model this
    can take minutes. So a thread of its own watches for signals. It waits for nothing but the time: ``stop`` runs in
    another thread, in case it blocks. Further signals change nothing.
    """

    def __init__(self) -> None:
        self.stop: Callable[[], object] | None = None  # None: nothing to stop yet, end at once
        self._signals, sink = os.pipe()
        os.set_blocking(sink, False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the last when its terminal is closed
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # which nohup asks for
                signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(sink, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="signals", daemon=True).start()

    def _watch(self) -> None:
        os.read(self._signals, 1)
        stop = self.stop
        if stop is not None:
            begun, spent = time.monotonic(), time.process_time()
            threading.Thread(target=stop, name="stop", daemon=True).start()
            while time.monotonic() - begun < GRACE and time.process_time() - spent < CPU_GRACE:
                time.sleep(0.01)
        os._exit(INTERRUPTED)  # without a flush, which waits for a thread that blocks in a write


def leave(status: int) -> NoReturn:
    """End the process without the interpreter's teardown.

    The teardown takes 1.5 s of CPU, and aborts if a thread of a library is still at work.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or its reader is gone
            stream.flush()
    os._exit(status)
