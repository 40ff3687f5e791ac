"""Progress of a long task: a bar on a terminal, otherwise lines."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from typing_extensions import Self

LINES = 20  # of a task that is counted in bytes


class PrepareProgress:
    """Progress over named steps, or over bytes. Off a terminal it prints a line for each step, or for each 5 %."""

    def __init__(self, what: str, total: int, *, in_bytes: bool = False) -> None:
        self._what, self._total, self._done, self._told = what, total, 0, 0
        self._between = total // LINES if in_bytes else 0
        unit = "B" if in_bytes else ""
        self._bar = tqdm(total=total, desc=what, unit=unit, unit_scale=in_bytes, disable=not sys.stderr.isatty())
        self._in_bytes = in_bytes

    def __enter__(self) -> Self:
        return self

    def step(self, name: str, amount: int = 1) -> None:
        """Report one more finished step, or that many more bytes."""
        self._done += amount
        self._bar.set_postfix_str(name, refresh=False)
        self._bar.update(amount)
        if self._bar.disable and self._done >= self._told + self._between:
            self._told = self._done
            done = f"{self._done / max(1, self._total):.0%}" if self._in_bytes else f"{self._done}/{self._total}"
            print(f"{self._what} {done}: {name}", flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
