"""Latest queues and the threads that take from them.

One thread owns the model, because CUDA graphs cannot be recorded or replayed by two threads. Queues keep only the
newest frame, because a robot needs the newest result rather than all of them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from lotus2_ros.config.live import LiveConfig

Item = TypeVar("Item")
Frame = TypeVar("Frame")
Result = TypeVar("Result")


class LatestQueue(Generic[Item]):
    """A queue that keeps only the newest item of each key, a camera for instance. Keys are served in turn."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: dict[str, Item] = {}
        self._turn: deque[str] = deque()
        self._closed = False
        self.dropped: dict[str, int] = {}

    def put(self, key: str, item: Item) -> None:
        """Add an item. An item of the same key that still waits is dropped and counted."""
        with self._changed:
            self.dropped.setdefault(key, 0)
            if key in self._items:
                self.dropped[key] += 1
            else:
                self._turn.append(key)
            self._items[key] = item
            self._changed.notify()

    def take(self, timeout: float | None) -> Item | None:
        """The next item, waiting up to ``timeout`` seconds (None: forever). None after a timeout or :meth:`close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._turn or self._closed, timeout)
            return self._items.pop(self._turn.popleft()) if self._turn and not self._closed else None

    def close(self) -> None:
        """Drop all items and wake the taker. From now on :meth:`take` returns None at once."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()


class QueueThread(Generic[Item]):
    """A thread that handles the items of its latest queue, one after the other.

    Nobody waits for it: an item that arrives while it is busy replaces the one that waits. ``failed`` is called in the
    thread with the exception that ended it.
    """

    name = "queue"

    def __init__(self, queue: LatestQueue[Item], failed: Callable[[Exception], None]) -> None:
        self.queue = queue
        self._failed = failed
        self._thread = threading.Thread(target=self._guarded, name=self.name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Finish the item in progress and end the thread. False if that takes longer than ``timeout`` seconds."""
        self.queue.close()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _guarded(self) -> None:
        try:
            self._run()
        except Exception as error:  # the owner decides what follows
            self._failed(error)

    def _run(self) -> None:
        while (item := self.queue.take(timeout=None)) is not None:
            self._handle(item)
            del item  # it may hold GPU memory

    def _handle(self, item: Item) -> None:
        raise NotImplementedError


class SenderThread(QueueThread[Item]):
    """The thread that publishes results while the model works on the next frame. ``send`` publishes one of them."""

    name = "sender"

    def __init__(self, send: Callable[[Item], None], failed: Callable[[Exception], None]) -> None:
        super().__init__(LatestQueue(), failed)
        self._send = send

    def _handle(self, item: Item) -> None:
        self._send(item)


class Steps(Protocol):
    """Work that is done one step at a time."""

    def step(self) -> bool:
        """Run one step; True while steps remain."""


class ModelThread(QueueThread[Frame], Generic[Frame, Result]):
    """The thread that owns the model. It predicts every frame it can and sharpens the newest result in between.

    ``predict`` turns a frame into a result to sharpen, or None if there is nothing to sharpen. ``sharpen`` turns that
    into the steps that sharpen it. Between two steps a waiting frame goes first, so a frame waits for one step at
    most. While frames arrive faster than the model, a step runs after a frame only if the sharpener has had less than
    ``sharp.share`` of the model's time since it started on its frame. So the sharpener never starves.

    ``sharp.period`` is the time in seconds between the starts of two sharpened frames, by the steady ``clock``.
    ``enter`` is called first in the thread.
    """

    name = "model"

    def __init__(
        self,
        queue: LatestQueue[Frame],
        predict: Callable[[Frame], Result | None],
        sharpen: Callable[[Result], Steps],
        config: LiveConfig,
        failed: Callable[[Exception], None],
        clock: Callable[[], float] = time.monotonic,
        enter: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(queue, failed)
        self._predict = predict
        self._sharpen = sharpen
        self._config = config
        self._clock = clock
        self._enter = enter
        self._running = True

    def stop(self, timeout: float) -> bool:
        """Finish the step in progress and end the thread. False if that takes longer than ``timeout`` seconds."""
        self._running = False
        return super().stop(timeout)

    def _run(self) -> None:
        self._enter()
        pending: Result | None = None
        job: Steps | None = None
        started = -float("inf")
        predicting = stepping = 0.0  # seconds spent on each since the job started
        while self._running:
            sharp = self._config.current.sharp
            due_in = max(0.0, started + sharp.period - self._clock())
            # With a job in progress do not wait, with a result wait until it is due, else wait for a frame.
            frame = self.queue.take(timeout=0 if job else due_in if pending is not None else None)
            begun = self._clock()
            if frame is not None:
                result = self._predict(frame)
                pending = result if result is not None else pending
            predicted = self._clock()
            if job is None and pending is not None and predicted >= started + sharp.period:
                job, pending, started = self._sharpen(pending), None, predicted
                predicting = stepping = 0.0
            predicting += predicted - begun
            starving = stepping < sharp.share * (predicting + stepping)
            if job is not None and (frame is None or starving):
                job = job if job.step() else None
                stepping += self._clock() - predicted
