"""Progress of a long task that has no progress bar, as lines in the log."""

from __future__ import annotations

import logging
import time

log = logging.getLogger(__name__)

PERIOD = 2.0  # seconds between lines


class ProgressLog:
    """Logs `what N of M` every few seconds; a short task logs nothing."""

    def __init__(self, what: str, steps: int) -> None:
        self._what, self._steps, self._done = what, steps, 0
        self._told = time.monotonic()

    def step(self) -> None:
        """Count one more finished step."""
        self._done += 1
        now = time.monotonic()
        if now >= self._told + PERIOD:
            self._told = now
            log.info("%s %d of %d", self._what, self._done, self._steps)


def show_progress() -> None:
    """Let a program print these lines, on stderr."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("lotus2_ros").setLevel(logging.INFO)
