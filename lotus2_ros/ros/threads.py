"""Latest queues and the threads that take from them.

One thread owns the model, because CUDA graphs cannot be recorded or replayed by two threads. Queues keep only the
newest frame, because a robot needs the newest result rather than all of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from lotus2_ros.config import SharpConfig
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.inference.sharpening import Sharpening

Item = TypeVar("Item")


class LatestQueue(Generic[Item]):
    """A queue that keeps only the newest item of each key, a camera for instance. Any thread may use it.

    Keys with an item are served in turn. One with twice the weight (default: 1) has twice as many turns: each turn sets
    a key back by the inverse of its weight, and the key that is least far goes next (start-time fair queueing).
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._changed = threading.Condition()
        self._items: dict[str, Item] = {}
        self._weights = weights or {}
        self._progress: dict[str, float] = {}
        self._reached = 0.0  # progress of the key served last; one that was idle starts from here
        self._closed = False
        self.dropped: dict[str, int] = {}

    def put(self, key: str, item: Item) -> None:
        """Add an item. An item of the same key that still waits is dropped and counted."""
        with self._changed:
            self.dropped.setdefault(key, 0)
            if key in self._items:
                self.dropped[key] += 1
            else:
                self._progress[key] = max(self._progress.get(key, 0.0), self._reached)
            self._items[key] = item
            self._changed.notify()

    def take(self, timeout: float | None) -> Item | None:
        """The next item, waiting up to ``timeout`` seconds (None: forever). None after a timeout or :meth:`close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout)
            if not self._items:
                return None
            key = min(self._items, key=self._progress.__getitem__)
            self._reached = self._progress[key]
            self._progress[key] += 1 / self._weights.get(key, 1.0)
            return self._items.pop(key)

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


@dataclass(frozen=True)
class SharpenAndPublish:
    """The steps of a sharpening, and one more that publishes its result. So a waiting frame waits for one of them."""

    sharpening: Sharpening
    publish: Callable[[Geometry], None]

    def step(self) -> bool:
        if not self.sharpening.done:
            self.sharpening.step()
            return True
        self.publish(self.sharpening.result())
        return False


class Refinable(Protocol):
    """A result of the core predictor that the sharpener may refine."""

    @property
    def camera(self) -> str: ...

    @property
    def sharp(self) -> SharpConfig:
        """The parameters of the camera's sharpener, as they are now."""

    def sharpen(self) -> Steps:
        """The steps that refine it, none run yet."""


class Predictable(Protocol):
    """A frame that waits for the model."""

    def predict(self) -> Refinable | None:
        """Run the core predictor. Returns what the sharpener may refine, or None."""


class Refinement(NamedTuple):
    """A result that is being refined."""

    coarse: Refinable
    steps: Steps


class ModelThread(QueueThread[Predictable]):
    """The thread that owns the model. It predicts every frame it can and sharpens the newest results in between.

    Between two steps a waiting frame goes first, so a frame waits for one step at most. While frames arrive faster than
    the model, a step runs after a frame only if the sharpener has had less than ``sharp.share`` of the model's time
    since it started on its frame. So the sharpener never starves.

    ``sharp.period`` is the time in seconds between the starts of two sharpened frames of a camera, by the steady
    ``clock``. Of several cameras that are due, the one that waited longest is next. ``enter`` is called first in the
    thread.
    """

    name = "model"

    def __init__(
        self,
        queue: LatestQueue[Predictable],
        failed: Callable[[Exception], None],
        clock: Callable[[], float] = time.monotonic,
        enter: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(queue, failed)
        self._clock = clock
        self._enter = enter
        self._running = True  # until `stop`, in the caller's thread; all that follows is this thread's own
        self._pending: dict[str, Refinable] = {}  # the newest result to sharpen of each camera
        self._started: dict[str, float] = {}  # when a result of each camera was last sharpened

    def stop(self, timeout: float) -> bool:
        """Finish the step in progress and end the thread. False if that takes longer than ``timeout`` seconds."""
        self._running = False
        return super().stop(timeout)

    def _run(self) -> None:
        self._enter()
        refinement: Refinement | None = None
        predicting = stepping = 0.0  # seconds spent on each since the refinement started
        while self._running:
            next_due = min(map(self._due, self._pending), default=None)
            due_in = None if next_due is None else max(0.0, next_due - self._clock())
            # With a refinement in progress do not wait, with a result wait until it is due, else wait for a frame.
            frame = self.queue.take(timeout=0 if refinement else due_in)
            begun = self._clock()
            coarse = None if frame is None else frame.predict()
            if coarse is not None:
                self._pending[coarse.camera] = coarse
            predicted = self._clock()
            if refinement is None and self._pending:
                camera = min(self._pending, key=self._due)
                if self._due(camera) <= predicted:
                    chosen = self._pending.pop(camera)
                    refinement, self._started[camera] = Refinement(chosen, chosen.sharpen()), predicted
                    predicting = stepping = 0.0
            predicting += predicted - begun
            if refinement is None:
                continue
            starving = stepping < refinement.coarse.sharp.share * (predicting + stepping)
            if frame is None or starving:
                refinement = refinement if refinement.steps.step() else None
                stepping += self._clock() - predicted

    def _due(self, camera: str) -> float:
        """When the pending result of a camera may be sharpened, by the clock."""
        return self._started.get(camera, -float("inf")) + self._pending[camera].sharp.period
