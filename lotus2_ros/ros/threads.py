"""LatestQueue that keep only the newest frame, the one thread that owns the model, and the one that sends its results.

One thread for the model, because CUDA graphs cannot be recorded or replayed by two at once, and because a robot wants
the newest frame rather than a queue of old ones.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

Frame = TypeVar("Frame")
Result = TypeVar("Result")
Item = TypeVar("Item")


class LatestQueue(Generic[Frame]):
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


class Steps(Protocol):
    """Work that is done one step at a time."""

    def step(self) -> bool:
        """Run one step; True while steps remain."""


class ModelThread(Generic[Frame, Result]):
    """The thread that predicts every frame it can and sharpens the newest result in between.

    ``predict`` turns a frame into a result to sharpen, or None if nothing is to be sharpened. ``sharpen`` turns that
    into the steps that sharpen it. Between two steps a waiting frame goes first, so that it waits for one step at the
    most. While frames wait without end, a step is run after one of them only where the sharpener
    has had less than ``share`` (0 to 1) of the model's time since it started on its frame; so it never starves.

    ``period`` gives the seconds between the starts of two sharpened frames, by the steady ``clock``: while a simulated
    one is paused no frames come, so nothing is sharpened. ``enter`` is the first that this thread calls; ``failed`` is
    called in it with the exception that ended it.
    """

    def __init__(
        self,
        queue: LatestQueue[Frame],
        predict: Callable[[Frame], Result | None],
        sharpen: Callable[[Result], Steps],
        period: Callable[[], float],
        share: Callable[[], float],
        failed: Callable[[Exception], None],
        clock: Callable[[], float] = time.monotonic,
        enter: Callable[[], None] = lambda: None,
    ) -> None:
        self._queue = queue
        self._predict = predict
        self._sharpen = sharpen
        self._period = period
        self._share = share
        self._failed = failed
        self._clock = clock
        self._enter = enter
        self._running = True
        self._thread = threading.Thread(target=self._guarded, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Finish the step under way and end the thread; False if that took longer than ``timeout`` seconds."""
        self._running = False
        self._queue.close()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _guarded(self) -> None:
        try:
            self._enter()
            self._run()
        except Exception as error:  # the thread's last act: hand whatever happened to the owner
            self._failed(error)

    def _run(self) -> None:
        pending: Result | None = None
        job: Steps | None = None
        started = -float("inf")
        predicting = stepping = 0.0  # seconds spent on either since the job started
        while self._running:
            due_in = max(0.0, started + self._period() - self._clock())
            # With a job at hand only look; with a result that waits for its turn wait until then; else for a frame.
            frame = self._queue.take(timeout=0 if job else due_in if pending is not None else None)
            begun = self._clock()
            if frame is not None:
                result = self._predict(frame)
                pending = result if result is not None else pending
            predicted = self._clock()
            if job is None and pending is not None and predicted >= started + self._period():
                job, pending, started = self._sharpen(pending), None, predicted
                predicting = stepping = 0.0
            predicting += predicted - begun
            starving = stepping < self._share() * (predicting + stepping)
            if job is not None and (frame is None or starving):
                job = job if job.step() else None
                stepping += self._clock() - predicted


class SenderThread(Generic[Item]):
    """A thread that sends what the model's thread hands it, one item after the other, while the model goes on.

    ``send`` does one item. Nothing is queued: :meth:`hand` blocks while the item before is still being sent. A queue
    would not send more, only later, and frames that the model cannot follow belong in the mailbox, where the newest
    replaces them before any work went into them. ``failed`` is called, in this thread, with the exception that ended
    it; items handed over after that are dropped.
    """

    def __init__(self, send: Callable[[Item], None], failed: Callable[[Exception], None]) -> None:
        self._send = send
        self._failed = failed
        self._changed = threading.Condition()
        self._item: Item | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._guarded, name="sender", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def hand(self, item: Item) -> None:
        """Give an item to the thread, once it is done with the one before."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is None or self._closed)
            if not self._closed:
                self._item = item
                self._changed.notify_all()

    def stop(self, timeout: float) -> bool:
        """Send what was handed over and end the thread; False if that took longer than ``timeout`` seconds."""
        self._close()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _guarded(self) -> None:
        try:
            self._run()
        except Exception as error:  # the thread's last act: hand whatever happened to the owner
            self._close()  # a model's thread that waits to hand over must not wait for ever
            self._failed(error)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._item is not None or self._closed)
                item = self._item
            if item is None:
                return
            self._send(item)
            with self._changed:
                self._item = None
                self._changed.notify_all()
            del item  # it holds memory of the GPU
