"""Mailboxes that keep only the newest frame, and the one thread that owns the model.

One thread, because compiled models and CUDA graphs assert when another thread uses them, and because a robot wants the
newest frame rather than a queue of old ones.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Frame = TypeVar("Frame")
Result = TypeVar("Result")


class Mailboxes(Generic[Frame]):
    """One place per camera that holds the newest frame only; the cameras are served in turn."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frames: dict[str, Frame] = {}
        self._turn: deque[str] = deque()
        self._closed = False
        self.dropped: dict[str, int] = {}

    def put(self, camera: str, frame: Frame) -> None:
        """Leave a frame; one that still waits in this camera's mailbox is dropped and counted."""
        with self._changed:
            self.dropped.setdefault(camera, 0)
            if camera in self._frames:
                self.dropped[camera] += 1
            else:
                self._turn.append(camera)
            self._frames[camera] = frame
            self._changed.notify()

    def take(self, timeout: float | None) -> Frame | None:
        """The next frame, within ``timeout`` seconds (None: no limit); None after a time-out or :meth:`close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._turn or self._closed, timeout)
            return self._frames.pop(self._turn.popleft()) if self._turn and not self._closed else None

    def close(self) -> None:
        """Wake the taker; from now on :meth:`take` gives None at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Worker(Generic[Frame, Result]):
    """The thread that predicts every frame it can and sharpens the newest result in between.

    ``predict`` turns a frame into a result to sharpen, or None if nothing is to be sharpened. ``sharpen`` turns that
    into an iterator that yields after every Euler step: between two steps a waiting frame goes first, so that it waits
    for one step at the most. ``period`` gives the seconds between the starts of two sharpened frames, by the steady
    clock: while a simulated clock is paused no frames come, so nothing is sharpened. ``failed`` is called, in this
    thread, with the exception that ended it.
    """

    def __init__(
        self,
        mailboxes: Mailboxes[Frame],
        predict: Callable[[Frame], Result | None],
        sharpen: Callable[[Result], Iterator[None]],
        period: Callable[[], float],
        failed: Callable[[Exception], None],
    ) -> None:
        self._mailboxes = mailboxes
        self._predict = predict
        self._sharpen = sharpen
        self._period = period
        self._failed = failed
        self._running = True
        self._thread = threading.Thread(target=self._guarded, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Finish the step under way and end the thread; False if that took longer than ``timeout`` seconds."""
        self._running = False
        self._mailboxes.close()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _guarded(self) -> None:
        try:
            self._run()
        except Exception as error:  # the thread's last act: hand whatever happened to the owner
            self._failed(error)

    def _run(self) -> None:
        pending: Result | None = None
        job: Iterator[None] | None = None
        started = -float("inf")
        while self._running:
            due_in = max(0.0, started + self._period() - time.monotonic())
            # With a job at hand only look; with a result that waits for its turn wait until then; else for a frame.
            frame = self._mailboxes.take(timeout=0 if job else due_in if pending is not None else None)
            if frame is not None:
                result = self._predict(frame)
                pending = result if result is not None else pending
            if job is None and pending is not None and time.monotonic() >= started + self._period():
                job, pending, started = self._sharpen(pending), None, time.monotonic()
            if job is not None and next(job, self) is self:
                job = None
