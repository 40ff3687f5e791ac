"""What a benchmark aims at: measured figures beside wanted ones, as a table and in files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.timing import markdown

HEADER = ("aim", "wanted", "measured", "")


@dataclass(frozen=True)
class Aim:
    """`measured` is to be at most (or, if `least`, at least) `wanted`."""

    name: str
    wanted: float
    measured: float | None
    least: bool = False

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured >= self.wanted if self.least else self.measured <= self.wanted


def aim_table(aims: Sequence[Aim]) -> str:
    verdict = {True: "met", False: "missed", None: "open"}
    return markdown(HEADER, [(aim.name, aim.wanted, aim.measured, verdict[aim.met]) for aim in aims])


def conclude(
    name: str, title: str, header: Sequence[str], rows: Sequence[Sequence[object]], aims: Sequence[Aim], folder: Path
) -> None:
    """Print a table and what was aimed at, and write both to `name`.md and `name`.json."""
    text = "\n\n".join((title, markdown(header, rows), aim_table(aims))) + "\n"
    print(text)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(text)
    content = {
        "title": title,
        "rows": [dict(zip(header, row, strict=True)) for row in rows],
        "aims": [{**asdict(aim), "met": aim.met} for aim in aims],
    }
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
