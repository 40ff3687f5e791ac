"""One line of the table of ``python -m benchmarks.alignment``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """`measured` is to be at most `wanted`; where that is None it is reported only."""

    what: str
    case: str
    measured: float
    unit: str
    wanted: float | None = None
    beside: str = ""  # what the same measure is for the alternative

    @property
    def met(self) -> bool:
        return self.wanted is None or self.measured <= self.wanted
