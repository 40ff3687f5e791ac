"""Tables like the paper's, with average ranks. The published numbers are in published.yaml."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PUBLISHED = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Table:
    """Values of methods by column; a column is a metric on a data set. None: not given."""

    columns: list[tuple[str, str]]  # data set, metric
    lower_is_better: list[bool]
    methods: dict[str, list[float | None]]
    printed_ranks: dict[str, float]

    def with_method(self, name: str, values: Mapping[tuple[str, str], float]) -> Table:
        """The table with one more row."""
        row = [values.get(column) for column in self.columns]
        return Table(self.columns, self.lower_is_better, {**self.methods, name: row}, self.printed_ranks)


def published_table(name: str) -> Table:
    """Table I (depth), II (normals) or III (ablation, of depth) of Lotus-2, arXiv 2512.01030v3."""
    data = yaml.safe_load(PUBLISHED.read_text())[name]
    columns = [(dataset, metric) for dataset in data["datasets"] for metric in data["metrics"]]
    return Table(
        columns,
        [data["metrics"][metric] == "lower" for _, metric in columns],
        {name: method["values"] for name, method in data["methods"].items()},
        {name: method["rank"] for name, method in data["methods"].items() if "rank" in method},
    )


def average_ranks(table: Table, gaps_as_zero: bool = False) -> dict[str, float | None]:
    """Mean rank over the columns that a method has values in; equal methods share the better rank.

    The paper divides by the number of all columns, which counts a missing rank as 0 and favors the two methods with
    gaps; `gaps_as_zero` does the same.
    """
    ranks: dict[str, list[int]] = {name: [] for name in table.methods}
    for index, lower in enumerate(table.lower_is_better):
        values = {name: row[index] for name, row in table.methods.items()}
        errors = {name: value if lower else -value for name, value in values.items() if value is not None}
        for name, error in errors.items():
            ranks[name].append(1 + sum(other < error for other in errors.values()))
    counts = {name: len(table.columns) if gaps_as_zero else len(row) for name, row in ranks.items()}
    return {name: sum(row) / counts[name] if row else None for name, row in ranks.items()}


def ranked_table(table: Table) -> str:
    """The table as Markdown with the best method last, as in the paper."""
    ranks = average_ranks(table)
    header = ["method", *(f"{dataset} {metric}" for dataset, metric in table.columns), "Avg. Rank", "as printed"]
    order = sorted(table.methods, key=lambda name: -(ranks[name] or 0))
    rows = [[name, *table.methods[name], ranks[name], table.printed_ranks.get(name)] for name in order]
    return markdown(header, rows, digits=1)


def markdown(header: Sequence[str], rows: Iterable[Sequence[Any]], digits: int = 3) -> str:
    """A Markdown table; floats with ``digits`` decimals, None and NaN as a dash."""

    def cell(value: Any) -> str:
        if value is None or value != value:
            return "-"
        return f"{value:.{digits}f}" if isinstance(value, float) else str(value)

    lines = [header, ["---"] * len(header), *([cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
