"""Progress of a session: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from typing_extensions import Self

LINE_PERIOD = 5.0


class DemoProgress:
    """Frames sent to the node, with the node's counters."""

    def __init__(self, frames: int) -> None:
        self._bar = tqdm(total=frames, unit=" frames", desc="playing", disable=not sys.stderr.isatty())
        self._frames = frames
        self._sent = 0
        self._counters: dict[str, int] = {}
        self._next_line = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def sent(self, count: int) -> None:
        self._bar.update(count - self._sent)
        self._sent = count
        self._line()

    def answered(self, counters: dict[str, int]) -> None:
        self._counters = counters
        self._bar.set_postfix(self._counters)
        self._line()

    def _line(self, last: bool = False) -> None:
        if self._bar.disable and (last or time.monotonic() >= self._next_line):
            self._next_line = time.monotonic() + LINE_PERIOD
            counters = ", ".join(f"{value} {name}" for name, value in self._counters.items())
            print(f"played {self._sent} of {self._frames} frames; node: {counters or 'no answer yet'}", flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if kind is None:
            self._line(last=True)
