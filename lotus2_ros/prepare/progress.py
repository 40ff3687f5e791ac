"""Progress of a long task: a bar on a terminal, otherwise a line for each step."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from typing_extensions import Self


class PrepareProgress:
    """Progress over named steps."""

    def __init__(self, what: str, steps: int) -> None:
        self._what, self._steps, self._done = what, steps, 0
        self._bar = tqdm(total=steps, desc=what, unit="", disable=not sys.stderr.isatty())

    def __enter__(self) -> Self:
        return self

    def step(self, name: str) -> None:
        """Report one more finished step."""
        self._done += 1
        self._bar.set_postfix_str(name, refresh=False)
        self._bar.update()
        if self._bar.disable:
            print(f"{self._what} {self._done}/{self._steps}: {name}", flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
