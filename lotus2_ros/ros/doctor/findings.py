"""The findings of checks, and a runner for a list of checks. Imports nothing that may be missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

Subject = TypeVar("Subject")


class Level(str, Enum):
    OK = "OK"
    HINT = "HINT"
    WRONG = "WRONG"


@dataclass(frozen=True)
class Finding:
    """One line: what was found, what was expected, and the command or parameter that mends it."""

    level: Level
    found: str
    expected: str = ""
    mend: str = ""
    about: str = ""

    def __str__(self) -> str:
        text = f"{self.about}: {self.found}"
        text += f"; expected {self.expected}" if self.expected else ""
        text += f"; to mend: {self.mend}" if self.mend else ""
        return f"{self.level.value:<5}  {' '.join(text.split())}"


def ok(found: str) -> Finding:
    return Finding(Level.OK, found)


def hint(found: str, expected: str = "", mend: str = "") -> Finding:
    return Finding(Level.HINT, found, expected, mend)


def wrong(found: str, expected: str = "", mend: str = "") -> Finding:
    return Finding(Level.WRONG, found, expected, mend)


Checks = Mapping[str, Callable[[Subject], Iterator[Finding]]]  # by what they are about


def examine(checks: Checks[Subject], subject: Subject) -> Iterator[Finding]:
    """The findings of all checks in their order. A check that raises is a finding too."""
    for about, check in checks.items():
        try:
            for finding in check(subject):
                yield replace(finding, about=about)
        except Exception as error:  # the other checks must still run
            yield replace(wrong(f"this check failed with {type(error).__name__}: {error}"), about=about)
